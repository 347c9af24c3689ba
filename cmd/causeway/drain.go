package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"causeway/control/api"
)

const drainHelp = `Withdraw the endpoints, wait until no packets come any more, and stop the running daemon. Routing daemons see the addresses of
the device causeway-any vanish and tell the routers; meanwhile all that still comes is forwarded. Other nodes of a cluster go on with
the IKE SAs. Ctrl-C ends the waiting of this command alone: the daemon goes on to drain.

A service manager that restarts whatever ends would start it again: the unit in scripts/systemd does so after a failure alone, and
drains at systemctl stop.`

func drainCommand() *cobra.Command {
	var socket string
	var limit time.Duration
	cmd := command("drain", "withdraw the endpoints, wait for traffic to leave, and stop the running daemon", noArgs, func(cmd *cobra.Command, _ []string) error {
		d, err := api.NewClient(socket).Drain(limit)
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		fmt.Fprintf(out, "drained after %.1f s: packets in a second were %.0f, are %.0f; the daemon stops\n", d.Waited, d.Before, d.Left)
		if d.Left > 0 && time.Duration(d.Waited*float64(time.Second)) >= limit {
			return errors.New("packets were still coming at the end: is the device causeway-any what the routing daemon announces?")
		}
		return nil
	})
	cmd.Long = drainHelp
	cmd.PreRunE = func(*cobra.Command, []string) error { // wrong use, and no failure
		if limit <= 0 || limit > time.Hour {
			return fmt.Errorf("--limit %v: more than nothing and at most an hour", limit)
		}
		return nil
	}
	cmd.Flags().DurationVar(&limit, "limit", 30*time.Second, "how long packets are waited for at most")
	socketFlag(cmd, &socket)
	return cmd
}
