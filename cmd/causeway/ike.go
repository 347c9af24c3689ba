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
			return fmt.Errorf("%s wants one of initiate, rekey, terminate, export-keys", cmd.CommandPath())
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
		exportKeysCommand(),
	)
	return ike
}

const exportKeysHelp = `Write the keys of a tunnel to a file for a while, so that Wireshark can read its packets: those of its IKE SAs, and of ESP
associations that are made from now on (causeway ike rekey makes new ones). Whoever has the file can read what the tunnel
carried. The file lies in node.state_dir, readable by its owner alone; the daemon's log says when the writing begins and ends.
Each line is one of Wireshark's tables ikev2_decryption_table and esp_sa, with the table's name in front.`

// exportKeysCommand has no default time: whoever wants keys says for how long.
func exportKeysCommand() *cobra.Command {
	var socket string
	var span time.Duration
	cmd := command("export-keys TUNNEL --for DURATION", "write a tunnel's keys to a file for a while, for Wireshark", oneTunnel, func(cmd *cobra.Command, args []string) error {
		f, err := api.NewClient(socket).ExportKeys(args[0], span)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: keys are written to %s for %v; remove it when it is not needed\n", args[0], f.Path, span)
		return nil
	})
	cmd.Long = exportKeysHelp
	socketFlag(cmd, &socket)
	cmd.Flags().DurationVar(&span, "for", 0, "how long, such as 10m, at most 1h")
	if err := cmd.MarkFlagRequired("for"); err != nil {
		panic(err) // the flag is there
	}
	return cmd
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
