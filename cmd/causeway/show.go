package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"causeway/config"
	"causeway/control/api"
)

// views are what `causeway show` can show: the address of the list, and how it becomes a table.
var views = map[string]func(c *api.Client) (list any, table func(io.Writer), err error){
	"tunnels":    view("tunnels", tunnelTable),
	"routes":     view("routes", routeTable),
	"neighbours": view("neighbours", neighbourTable),
	"workers":    view("workers", workerTable),
	"drops":      view("drops", dropTable),
	"ports":      view("ports", portTable),
	"sas":        sasView,
	"ike":        view("ike", ikeTable),
	"health":     view("health", healthTable),
	"history":    view("history", historyTable),
	"nodes":      view("nodes", nodeTable),
	"cluster":    view("cluster", clusterTable),
	"fleet":      view("fleet", fleetTable),
	"status":     view("status", statusTable),
}

// shown is their order in help texts.
var shown = []string{"tunnels", "routes", "neighbours", "workers", "drops", "ports", "sas", "ike", "health", "history", "nodes", "cluster", "fleet", "status"}

const showHelp = `Show what the running daemon knows:

  tunnels     each tunnel: its ends, its MTU and MSS, packets and bytes, the way to the customer
  routes      all routes, by account and prefix: where each comes from, where it leads, whether it is in use
  neighbours  the hosts on the interfaces: link address, the kernel's state, whether a route or tunnel uses them
  workers     each worker: its core, queues and packets; all frames that came and what became of them
  drops       the reasons that packets were dropped for, with the rule behind each
  ports       each queue of each interface: driver and mode, what rings and sockets lost; packets by class
  sas         the security associations of IPsec tunnels: SPI, algorithms, owner, packets; of keys a checksum alone, by
              which the two ends can be compared; then what ike has
  ike         what IKE does for each tunnel: its associations, ages, what was agreed on, why a negotiation failed
  health      each tunnel that is probed: its state and why, what its routes are worse by, probes and how long answers take
  history     what became of tunnels' states in the last 30 days, the last thousand changes
  nodes       each node of the cluster, or the one that is alone: whether it lives and is ready, and whether it has the same
              child SAs as this one
  cluster     how this node stands in the cluster: the store, its number for IVs, what is not stored or not installed
  fleet       the configuration that was applied (causeway apply), and which of the nodes work with it; its text is in
              -o json
  status      the node's name, whether it is ready, version, uptime and configuration

With -o json scripts get all fields; drops has all reasons then.`

func view[T any](what string, table func(io.Writer, T)) func(*api.Client) (any, func(io.Writer), error) {
	return func(c *api.Client) (any, func(io.Writer), error) {
		var v T
		err := c.Show(what, &v)
		return v, func(w io.Writer) { table(w, v) }, err
	}
}

// sasView shows the associations of ESP and, as a table, those of IKE that have made them.
func sasView(c *api.Client) (any, func(io.Writer), error) {
	var sas []api.SA
	var ike []api.IKE
	err := errors.Join(c.Show("sas", &sas), c.Show("ike", &ike))
	return sas, func(w io.Writer) {
		saTable(w, sas, ike)
		if len(ike) > 0 {
			fmt.Fprintln(w)
			ikeTable(w, ike)
		}
	}, err
}

func socketFlag(cmd *cobra.Command, socket *string) {
	cmd.Flags().StringVar(socket, "socket", config.DefaultSocket, "the daemon's control `SOCKET`")
}

// whatToShow wants one of the words in shown.
func whatToShow(_ *cobra.Command, args []string) error {
	if len(args) == 1 && slices.Contains(shown, args[0]) {
		return nil
	}
	return fmt.Errorf("show wants one of %s, got %q", strings.Join(shown, ", "), strings.Join(args, " "))
}

func showCommand() *cobra.Command {
	show := &cobra.Command{
		Use:   "show " + strings.Join(shown, "|"),
		Short: "show what the running daemon knows",
		Long:  showHelp,
		Args:  whatToShow, ValidArgs: shown,
	}
	var socket, output string
	socketFlag(show, &socket)
	show.Flags().StringVarP(&output, "output", "o", "table", "`FORMAT`: table or json")
	show.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains([]string{"table", "json"}, output) {
			return fmt.Errorf("output %q: table and json are possible", output)
		}
		if err := showOne(cmd.OutOrStdout(), api.NewClient(socket), args[0], output); err != nil {
			return failure{err}
		}
		return nil
	}
	return show
}

func showOne(w io.Writer, c *api.Client, what, output string) error {
	list, table, err := views[what](c)
	if err != nil {
		return err
	}
	if output == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(list)
	}
	table(w)
	return nil
}

func reloadCommand() *cobra.Command {
	var socket string
	cmd := command("reload", "make the running daemon read its configuration again", noArgs, func(cmd *cobra.Command, _ []string) error {
		r, err := api.NewClient(socket).Reload()
		if err != nil {
			return err
		}
		for _, w := range r.Warnings {
			fmt.Fprintln(cmd.ErrOrStderr(), w, "(warning)")
		}
		if n := len(r.TunnelsRenewed); n > 0 {
			fmt.Fprintf(cmd.OutOrStdout(), "%s to be negotiated anew: %s\n", count(n, "tunnel"), listed(r.TunnelsRenewed))
		}
		if len(r.Settings) > 0 {
			fmt.Fprintf(cmd.OutOrStdout(), "changed: %s\n", listed(r.Settings))
		}
		fmt.Fprintf(cmd.OutOrStdout(), "reloaded: %s added, %d removed, %d changed; %s added, %d removed\n",
			count(len(r.TunnelsAdded), "tunnel"), len(r.TunnelsRemoved), len(r.TunnelsChanged), count(r.RoutesAdded, "route"), r.RoutesRemoved)
		return nil
	})
	socketFlag(cmd, &socket)
	return cmd
}

// listed names the first ones of a list.
func listed(names []string) string {
	const most = 10
	if len(names) > most {
		return strings.Join(names[:most], ", ") + ", ..."
	}
	return strings.Join(names, ", ")
}

// table writes aligned columns; the first row is the heading.
func table(w io.Writer, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(r, "\t"))
	}
	t.Flush()
}
