package main

import (
	"net"
	"os"
)

// notify tells the service manager a state, as sd_notify(3) does; without one it does nothing.
func notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"}) // a leading @ is an abstract name
	if err != nil {
		return // the manager has gone; there is nobody to tell
	}
	defer c.Close()
	_, _ = c.Write([]byte(state))
}
