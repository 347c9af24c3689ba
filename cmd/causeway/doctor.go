package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"causeway/config"
	"causeway/control/doctor"
)

func doctorCommand() *cobra.Command {
	var file string
	cmd := command("doctor", "say what is fast on this machine, what is not, and why", noArgs, func(cmd *cobra.Command, _ []string) error {
		var c *config.Config
		if file != "" {
			var err error
			if c, err = config.Load(file); err != nil {
				return err
			}
		}
		if printFindings(cmd.OutOrStdout(), doctor.Examine(c)) {
			return failure{} // the report says it
		}
		return nil
	})
	return configFlag(cmd, &file, "")
}

// printFindings reports whether one of them is a failure.
func printFindings(w io.Writer, findings []doctor.Finding) (failed bool) {
	var rows [][]string
	for _, f := range findings {
		failed = failed || f.Level == doctor.Fail
		text := f.Text
		if f.Todo != "" {
			text += " -> " + f.Todo
		}
		rows = append(rows, []string{string(f.Level), f.What, text})
	}
	table(w, rows)
	if failed {
		fmt.Fprintln(w, "causeway run will not work here: see the lines that say fail")
	}
	return failed
}
