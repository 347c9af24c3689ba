package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"causeway/control/api"
)

// ikeCommand makes the daemon negotiate, at once rather than when it is time.
func ikeCommand() *cobra.Command {
	ike := &cobra.Command{
		Use:   "ike",
		Short: "negotiate, rekey or delete the associations of a tunnel now",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return fmt.Errorf("%s wants one of initiate, rekey, terminate", cmd.CommandPath())
		},
	}
	var self bool
	rekey := ikeVerb("rekey", "replace the ESP associations of a tunnel by new ones; no packet is lost", "rekeyed", func() string {
		if self {
			return api.IKERekeySelf
		}
		return api.IKERekey
	})
	rekey.Flags().BoolVar(&self, "ike", false, "replace the IKE SA instead")
	ike.AddCommand(
		ikeVerb("initiate", "negotiate a tunnel, and wait until it is up", "established", func() string { return api.IKEInitiate }),
		rekey,
		ikeVerb("terminate", "delete all associations of a tunnel; one with initiate: true begins again", "terminated", func() string { return api.IKETerminate }),
	)
	return ike
}

// ikeVerb is one of the commands; done is said when it was done.
func ikeVerb(name, short, done string, what func() string) *cobra.Command {
	var socket string
	cmd := command(name+" TUNNEL", short, oneTunnel, func(cmd *cobra.Command, args []string) error {
		if err := api.NewClient(socket).CommandIKE(what(), args[0]); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", args[0], done)
		return nil
	})
	socketFlag(cmd, &socket)
	return cmd
}

func oneTunnel(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s wants the name of one tunnel, got %q", cmd.CommandPath(), strings.Join(args, " "))
	}
	return nil
}

// ikeTable shows an IKE SA in a line, and below it its pairs.
func ikeTable(w io.Writer, list []api.IKE) {
	if len(list) == 0 {
		fmt.Fprintln(w, "there are no tunnels with ike")
		return
	}
	rows := [][]string{{"TUNNEL", "SA", "STATE", "SUITE", "LOCAL", "REMOTE", "AGE", "REKEY IN"}}
	for _, t := range list {
		if len(t.SAs) == 0 {
			rows = append(rows, []string{t.Tunnel, "none", "-", "-", "-", "-", "-", "-"})
		}
		for _, s := range t.SAs {
			rows = append(rows, []string{t.Tunnel, "IKE " + s.SPIInitiator + "/" + s.SPIResponder, s.State + " " + s.Role, s.Suite,
				s.LocalID + " " + s.Local, s.RemoteID + " " + s.Remote, age(s.Age), age(s.RekeyIn)})
			for _, c := range s.Children {
				rows = append(rows, []string{t.Tunnel, fmt.Sprintf("ESP %#x/%#x", c.SPIIn, c.SPIOut), c.State, c.Suite, c.Local, c.Remote, age(c.Age), age(c.RekeyIn)})
			}
		}
	}
	table(w, rows)
	for _, t := range list {
		if t.Failure != "" {
			fmt.Fprintf(w, "%s: the last negotiation failed: %s\n", t.Tunnel, t.Failure)
		}
	}
}

func age(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
}
