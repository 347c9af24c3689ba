package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"causeway/config"
	"causeway/control/api"
)

const applyHelp = `Make accounts, tunnels and routes what all nodes of the cluster work with, or the one that is without a cluster. FILE has these three
sections, as a node's own file has them; a tunnel's endpoint must be one of the endpoints of each node. Pre-shared keys, written as
{file: PATH} or {env: NAME}, are read here and carried to the nodes, sealed; certificates are files that each node has.

The node that is asked tries FILE first, and stores nothing with a mistake in it. Then all nodes take it over without losing packets of
tunnels that stay, and keep it; each says which one it works with. A node that it does not fit refuses it as a whole, and goes on with
the one of before. The file replaces what was applied before: what is not in it is removed.

Exit status 1 also if a node that lives has refused it, could not take all of it or not keep it, or has not taken it within --wait.`

func applyCommand() *cobra.Command {
	var socket, file string
	var dry bool
	var wait time.Duration
	cmd := command("apply -f FILE", "make accounts, tunnels and routes what all nodes work with", noArgs, func(cmd *cobra.Command, _ []string) error {
		f, err := config.LoadFleet(file)
		if err != nil {
			return err
		}
		return apply(cmd.OutOrStdout(), cmd.ErrOrStderr(), api.NewClient(socket), f, dry, wait)
	})
	cmd.Long = applyHelp
	cmd.PreRunE = func(*cobra.Command, []string) error { // wrong use, and no failure
		switch {
		case file == "":
			return errors.New("apply needs a file: -f tunnels.yaml")
		case wait < 0 || wait > time.Hour:
			return fmt.Errorf("--wait %v: nothing to an hour", wait)
		}
		return nil
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "`FILE` with accounts, tunnels and routes")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only say what is wrong with it, and what it would change at this node")
	cmd.Flags().DurationVar(&wait, "wait", 30*time.Second, "how long the nodes are waited for at most")
	socketFlag(cmd, &socket)
	return cmd
}

func apply(out, problems io.Writer, c *api.Client, f *config.Fleet, dry bool, wait time.Duration) error {
	a, err := c.Apply(f, dry)
	if err != nil {
		return err
	}
	for _, w := range a.Warnings {
		fmt.Fprintln(problems, w, "(warning)")
	}
	changes := fmt.Sprintf("%s added, %d removed, %d changed; %s added, %d removed",
		count(len(a.TunnelsAdded), "tunnel"), len(a.TunnelsRemoved), len(a.TunnelsChanged), count(a.RoutesAdded, "route"), a.RoutesRemoved)
	if dry {
		fmt.Fprintf(out, "%s is good for this node, and would be: %s\n", f.Name, changes)
		return nil
	}
	fmt.Fprintf(out, "stored as %d: %s\n", a.Serial, changes)
	x, err := awaitApplied(c, a.Serial, wait)
	if err != nil {
		return err
	}
	fleetNodes(out, x)
	switch runs, refused, late, flawed := x.outcome(a.Serial); {
	case x.Serial > a.Serial:
		return fmt.Errorf("configuration %d was applied meanwhile, and takes the place of %d", x.Serial, a.Serial)
	case len(refused) > 0:
		return fmt.Errorf("not taken over by %s", listed(refused))
	case len(late) > 0:
		return fmt.Errorf("not taken over yet by %s: `causeway show fleet` tells when it is", listed(late))
	case len(flawed) > 0:
		return fmt.Errorf("in effect, and not all of it or not kept: %s", listed(flawed))
	default:
		fmt.Fprintf(out, "%s with %d\n", count(runs, "node"), a.Serial)
		return nil
	}
}

// A fleet is what is known of all nodes.
type fleet struct{ api.Fleet }

// outcome says how many nodes that live work with a serial, and which ones refuse it, have not taken it yet, or have taken it with something
// to say.
func (f fleet) outcome(serial uint64) (runs int, refused, late, flawed []string) {
	for _, n := range f.Nodes {
		switch {
		case n.State != "self" && n.State != "live":
		case n.Runs >= serial:
			runs++
			if n.Why != "" {
				flawed = append(flawed, n.Name)
			}
		case n.Refused >= serial:
			refused = append(refused, n.Name)
		default:
			late = append(late, n.Name)
		}
	}
	return runs, refused, late, flawed
}

// awaitApplied returns when each node that lives has said what becomes of a serial, or after a time.
func awaitApplied(c *api.Client, serial uint64, wait time.Duration) (x fleet, err error) {
	for end := time.Now().Add(wait); ; time.Sleep(50 * time.Millisecond) {
		if err := c.Show("fleet?brief=yes", &x.Fleet); err != nil {
			return x, err
		}
		if _, _, late, _ := x.outcome(serial); len(late) == 0 || x.Serial > serial || time.Now().After(end) {
			return x, nil
		}
	}
}

func fleetTable(w io.Writer, f api.Fleet) {
	if f.Serial == 0 {
		fmt.Fprintln(w, "nothing was applied yet: each node has the tunnels of its own file")
	} else {
		fmt.Fprintf(w, "configuration %d: %s, applied at %s, %s, digest %.16s\n", f.Serial, f.File, f.By, f.AppliedAt, f.Digest)
	}
	fleetNodes(w, fleet{f})
}

// fleetNodes lists which node works with what.
func fleetNodes(w io.Writer, f fleet) {
	rows := [][]string{{"NODE", "STATE", "RUNS", "REFUSES"}}
	for _, n := range f.Nodes {
		if n.State == "refused" { // it is none of the cluster's
			continue
		}
		runs, refuses := "-", "-"
		if n.Runs != 0 {
			runs = num(n.Runs)
		}
		if n.Refused != 0 {
			refuses = num(n.Refused)
		}
		rows = append(rows, []string{n.Name, n.State, runs, refuses})
	}
	table(w, rows)
	for _, n := range f.Nodes {
		why := strings.ReplaceAll(n.Why, "\n", "\n  ")
		switch {
		case why != "" && n.Refused == 0:
			fmt.Fprintf(w, "%s: %s\n", n.Name, why)
		case why != "":
			fmt.Fprintf(w, "%s refuses %d: %s\n", n.Name, n.Refused, why)
		}
	}
}
