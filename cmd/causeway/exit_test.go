package main

import (
	"errors"
	"os/exec"
)

// exitStatus is the status of a command that ended with err.
func exitStatus(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}
