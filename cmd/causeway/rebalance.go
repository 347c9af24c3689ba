package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"causeway/control/api"
)

const rebalanceHelp = `Have flows go where the weights of routes say, at once. When a tunnel, or a router, of several with one priority comes back, flows
stay with those that have carried them until they are silent for steering.stay, and only then does it get its share again. This
command does not wait for that: flows that move may be reordered, and a stateful firewall on the other way may not know them.`

func rebalanceCommand() *cobra.Command {
	var socket string
	cmd := command("rebalance", "have flows go where the weights of routes say, at once", noArgs, func(cmd *cobra.Command, _ []string) error {
		r, err := api.NewClient(socket).Rebalance()
		if err == nil {
			fmt.Fprintf(cmd.OutOrStdout(), "%s of flows moved, of 256 in each group of routes\n", count(r.Parts, "part"))
		}
		return err
	})
	cmd.Long = rebalanceHelp
	socketFlag(cmd, &socket)
	return cmd
}
