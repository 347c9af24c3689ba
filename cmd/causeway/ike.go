package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"causeway/control/api"
	"causeway/control/ike"
)

// ikeCommand makes the daemon negotiate, at once rather than when it is time.
func ikeCommand() *cobra.Command {
	var self bool
	rekey := ikeVerb("rekey", "replace the ESP associations of a tunnel by new ones; no packet is lost", "rekeyed", func() string {
		if self {
			return api.IKERekeySelf
		}
		return api.IKERekey
	})
	rekey.Flags().BoolVar(&self, "ike", false, "replace the IKE SA instead")
	return commandOf("ike", "negotiate, rekey or delete the associations of a tunnel now",
		ikeVerb("initiate", "negotiate a tunnel, and wait until it is up", "established", func() string { return api.IKEInitiate }),
		rekey,
		ikeVerb("terminate", "delete all associations of a tunnel; one with initiate: true begins again", "terminated", func() string { return api.IKETerminate }),
		exportKeysCommand(),
	)
}

// commandOf is a command that does nothing without one of those below it.
func commandOf(use, short string, below ...*cobra.Command) *cobra.Command {
	parent := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return noSuchCommand(cmd, args[0])
			}
			return fmt.Errorf("%s wants one of %s", cmd.CommandPath(), subcommands(cmd))
		},
	}
	parent.AddCommand(below...)
	return parent
}

const exportKeysHelp = `Write the keys of a tunnel to a file for a while, so that Wireshark can read its packets: those of its IKE SAs, and of ESP
associations that are made from now on (causeway ike rekey makes new ones). Whoever has the file can read what the tunnel
carried. The file lies in node.state_dir, readable by its owner alone; the daemon's log says when the writing begins and ends.
Each line is one of Wireshark's tables ikev2_decryption_table and esp_sa, with the table's name in front.`

// An exportTime is for how long keys are written.
type exportTime time.Duration

// String of none is empty, so that the help does not call it the default.
func (t *exportTime) String() string {
	if *t == 0 {
		return ""
	}
	return time.Duration(*t).String()
}

func (t *exportTime) Type() string { return "duration" }

func (t *exportTime) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Second || d > ike.MaxKeyLog {
		return errors.New("from 1s to 1h are possible")
	}
	*t = exportTime(d)
	return nil
}

// exportKeysCommand has no default time: whoever wants keys says for how long.
func exportKeysCommand() *cobra.Command {
	var socket string
	var span exportTime
	cmd := command("export-keys TUNNEL --for DURATION", "write a tunnel's keys to a file for a while, for Wireshark", oneTunnel, func(cmd *cobra.Command, args []string) error {
		f, err := api.NewClient(socket).ExportKeys(args[0], time.Duration(span))
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: keys are written to %s for %v; remove it when it is not needed\n", args[0], f.Path, time.Duration(span))
		return nil
	})
	cmd.Long = exportKeysHelp
	socketFlag(cmd, &socket)
	cmd.Flags().Var(&span, "for", "how long, such as 10m: from 1s to 1h")
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
		for _, o := range t.Elsewhere {
			at := "at " + o.Node
			if o.Gone {
				at = "of " + o.Node + ", which is gone"
			}
			rows = append(rows, []string{t.Tunnel, "IKE " + o.SPI, at, "-", "-", "-", "-", "-"})
		}
		if len(t.SAs)+len(t.Elsewhere) == 0 {
			rows = append(rows, []string{t.Tunnel, "none", "-", "-", "-", "-", "-", "-"})
		}
		for _, s := range t.SAs {
			rows = append(rows, []string{t.Tunnel, "IKE " + s.SPIInitiator + "/" + s.SPIResponder, s.State + " " + s.Role, cmp.Or(s.Suite, "-"),
				s.LocalID + " " + s.Local, s.RemoteID + " " + s.Remote, age(s.Age), age(s.RekeyIn)})
			for _, c := range s.Children {
				rows = append(rows, []string{t.Tunnel, fmt.Sprintf("ESP %#x/%#x", c.SPIIn, c.SPIOut), c.State, c.Suite, c.Local, c.Remote, age(c.Age), age(c.RekeyIn)})
			}
		}
	}
	table(w, rows)
	for _, t := range list {
		if t.Failure != "" {
			fmt.Fprintf(w, "%s: %s ago: %s\n", t.Tunnel, age(t.FailureAge), t.Failure)
		}
	}
}

func age(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
}
