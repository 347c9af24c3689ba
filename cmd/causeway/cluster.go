package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"causeway/control/api"
	"causeway/control/node"
)

const identityHelp = `Print the line that admits this node to a cluster: its name and the fingerprint of its identity. It belongs into the roster
of every node (cluster.roster). The identity lies in node.state_dir, and is made the first time.`

// clusterCommand is about this node's part in a cluster.
func clusterCommand() *cobra.Command {
	var state, name string
	identity := command("identity", "print the line that admits this node", noArgs, func(cmd *cobra.Command, _ []string) error {
		fingerprint, err := node.Fingerprint(state)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), name, fingerprint)
		return err
	})
	identity.Long = identityHelp
	identity.Flags().StringVar(&state, "state-dir", node.DefaultStateDir, "node.state_dir of the configuration, a `DIRECTORY`")
	identity.Flags().StringVar(&name, "name", hostName(), "node.name of the configuration, a `NAME`")
	return commandOf("cluster", "what a node needs to be one of many", identity)
}

// hostName is node.name of a configuration that has none.
func hostName() string {
	name, _ := os.Hostname()
	return name
}

func nodeTable(w io.Writer, nodes []api.ClusterNode) {
	rows := [][]string{{"NODE", "STATE", "READY", "ADDRESS", "DATACENTER", "REGION", "RELEASE", "EPOCH", "CHILD SAS", "SAME", "HEARD"}}
	for _, n := range nodes {
		heard, ready, epoch := "-", "yes", "-"
		if n.State == "live" || n.State == "silent" {
			heard = time.Duration(n.HeardAgo*float64(time.Second)).Round(100*time.Millisecond).String() + " ago"
		}
		if len(n.NotReady) > 0 {
			ready = "no"
		}
		if n.Epoch != 0 {
			epoch = num(n.Epoch)
		}
		if n.State == "refused" {
			rows = append(rows, []string{n.Name, n.State, "-", "-", "-", "-", "-", "-", "-", "-", "-"})
			continue
		}
		rows = append(rows, []string{n.Name, n.State, ready, or(n.Address, "-"), or(n.Datacenter, "-"), or(n.Region, "-"), or(n.Release, "-"), epoch, num(n.SAs),
			map[bool]string{false: "no", true: "yes"}[n.Agrees], heard})
	}
	table(w, rows)
	for _, n := range nodes {
		if n.Why != "" {
			fmt.Fprintf(w, "%s is refused: %s\n", n.Name, n.Why)
		}
		if len(n.NotReady) > 0 {
			fmt.Fprintf(w, "%s is not ready: %s\n", n.Name, strings.Join(n.NotReady, ", "))
		}
	}
}

// replicaWords says of each replica whether it may be relied on: only when all may, another hub is stopped.
func replicaWords(list []api.StoreReplica) string {
	var words []string
	for _, r := range list {
		switch {
		case r.Offline:
			words = append(words, r.Name+" is away")
		case !r.Current || r.Lag > 0:
			words = append(words, fmt.Sprintf("%s is behind by %s", r.Name, count(int(r.Lag), "change")))
		default:
			words = append(words, r.Name+" has all")
		}
	}
	return strings.Join(words, ", ")
}

func clusterTable(w io.Writer, c api.Cluster) {
	switch c.State {
	case "alone":
		fmt.Fprintln(w, "this node is alone: its configuration has no cluster")
		if c.Why != "" {
			fmt.Fprintf(w, "nothing can be applied: %s\n", c.Why)
		}
		fmt.Fprintf(w, "child SAs %d, IKE SAs %d\n", c.SAs, c.IKESAs)
		return
	case "joined":
		fmt.Fprintf(w, "joined: %s live, epoch %d\n", count(c.Nodes, "node"), c.Epoch)
	default:
		fmt.Fprintf(w, "the store is not reached: %s\ntunnels that are up go on; %s\n", cmp.Or(c.Why, "not joined yet"), negotiates(c))
	}
	if len(c.Replicas) > 0 {
		fmt.Fprintf(w, "store of %s: %s\n", count(len(c.Replicas), "replica"), replicaWords(c.Replicas))
	}
	if c.ClockAhead != 0 {
		fmt.Fprintf(w, "this node's clock is %s the store's: set both, as with NTP\n", aheadWords(c.ClockAhead))
	}
	if c.Numbered {
		fmt.Fprintf(w, "number for IVs %d, generation of the store %s\n", c.Writer, c.Generation)
	} else {
		fmt.Fprintln(w, "this process has no number for IVs yet: it encrypts nothing")
	}
	fmt.Fprintf(w, "child SAs %d (digest %s), SPIs reserved ahead %d\n", c.SAs, c.Digest, c.SPIsReserved)
	fmt.Fprintf(w, "IKE SAs %d: %d here, %d of nodes that are gone\n", c.IKESAs, c.IKEHere, c.IKEVacant)
	if n := c.OwnedHere + c.OwnedThere + c.Ownerless; n > 0 {
		fmt.Fprintf(w, "tunnels with replay protection %d: encrypted here %d, by other nodes %d, by nobody %d\n", n, c.OwnedHere, c.OwnedThere, c.Ownerless)
	}
	if c.Unconfirmed > 0 {
		fmt.Fprintf(w, "this node encrypts with %s without the store: another node may do so too, and then the customer drops packets\n", count(c.Unconfirmed, "child SA"))
	}
	fmt.Fprintf(w, "not stored yet %d, not installed here %d, not opened for lack of a key %d\n", c.NotStored, c.NotInstalled, c.NotOpened)
	if c.Compared > 0 {
		fmt.Fprintf(w, "compared with the store %s ago\n", time.Duration(c.Compared*float64(time.Second)).Round(100*time.Millisecond))
	}
	fmt.Fprintf(w, "acknowledgements that came late %d, values refused %d\n", c.LateAcks, c.Refused)
}

// negotiates says what a node negotiates without the store.
func negotiates(c api.Cluster) string {
	switch {
	case !c.Local:
		return "nothing new is negotiated"
	case c.NotTold > 0:
		return fmt.Sprintf("new tunnels are negotiated for this data center alone, whose nodes have not acknowledged %s yet", count(c.NotTold, "change"))
	default:
		return "new tunnels are negotiated for this data center alone"
	}
}

// aheadWords says how one clock stands to another.
func aheadWords(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second)).Round(time.Second)
	if d < 0 {
		return (-d).String() + " behind"
	}
	return d.String() + " ahead of"
}
