package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"causeway/config"
	"causeway/pipeline/pcapport"
)

const replayHelp = `Say what the node would do with the frames of a capture (pcap or pcapng, Ethernet), as if they came in by one of
its interfaces. The workers' own code runs, over the tables of the configuration; it needs no rights, no interfaces
and no running daemon, and touches none.

For each frame, by its number in the capture:

  forwarded  left the node; "by eth1 #2 (142 bytes)" was the second frame to leave, and is frame 2 of OUT
  delivered  answered by the node itself: ping of its address in a tunnel, GRE keepalive
  punted     given to the host: a packet to an endpoint that is no tunnel's
  dropped    with the reasons, as in "causeway show drops"; what leaves all the same is an ICMP error
  held       a fragment that waits for the others of its datagram
  cut        not fed: the capture has only its beginning (snap length)
  too_large  not fed: longer than a frame of the workers, so the interface would drop it

Each frame is taken for one that the node received. A capture has those that it sent too: leave them out, for example by
tcpdump -Q out at the other end of the link.

Time is the capture's: fragments wait, and ICMP errors are limited, by the frames' timestamps.

There is no kernel here, and what it would know is made up:

  - routes of its table, and neighbours: what no route of the file covers goes to a made-up next hop on the interface
    --default, and so do the outer packets of tunnels; every next hop answers
  - its addresses: only the endpoints are the host's own; what is for another address of the host is forwarded
  - link addresses: frames to any are taken, and OUT has made-up ones; every link has an MTU of 1500
  - keys: a capture is not decrypted; ESP is dropped for esp_no_sa, what is for an IPsec tunnel for esp_no_outbound
  - the steering program, which leaves ARP, BGP, ssh and all else that is not for the workers to the kernel: here
    they go through the pipeline too`

// replayOptions are what the command line says.
type replayOptions struct {
	config, in, out string
	port, fallback  string // interfaces
	output          string
}

func replayCommand() *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use:   "replay IN.pcap",
		Short: "say what the node would do with the frames of a capture",
		Long:  replayHelp,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("replay wants one capture file, got %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.in = args[0]
			return replay(cmd.OutOrStdout(), o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.port, "interface", "i", "", "`INTERFACE` that the frames come in by (default: the first of the file)")
	f.StringVar(&o.fallback, "default", "", "`INTERFACE` of the made-up next hop (default: the first of the file)")
	f.StringVarP(&o.out, "write", "w", "", "write what leaves to this pcapng file, `OUT`, with one interface per port")
	f.StringVarP(&o.output, "output", "o", "text", "`FORMAT`: text or json")
	return configFlag(cmd, &o.config, defaultConfig)
}

// replay returns a failure, or what is wrong with how the command was called.
func replay(w io.Writer, o replayOptions) error {
	if !slices.Contains([]string{"text", "json"}, o.output) {
		return fmt.Errorf("output %q: text and json are possible", o.output)
	}
	c, err := config.Load(o.config)
	if err != nil {
		return failure{err}
	}
	names := interfaceNames(c)
	port, err := portOf("interface", o.port, names)
	if err != nil {
		return err
	}
	fallback, err := portOf("default", o.fallback, names)
	if err != nil {
		return err
	}
	if o.out != "" && (sameFile(o.out, o.in) || sameFile(o.out, o.config)) {
		return fmt.Errorf("write %s: that file is read here and would be lost: name another", o.out)
	}
	if err := replayFiles(w, o, c, port, fallback); err != nil {
		return failure{err}
	}
	return nil
}

func interfaceNames(c *config.Config) []string {
	names := make([]string, len(c.Interfaces))
	for i, f := range c.Interfaces {
		names[i] = f.Name
	}
	return names
}

// portOf returns the number of the interface that a flag names, 0 if it is empty.
func portOf(flag, name string, names []string) (int, error) {
	if name == "" {
		return 0, nil
	}
	i := slices.Index(names, name)
	if i < 0 {
		return 0, fmt.Errorf("%s %q: the configuration has %s", flag, name, strings.Join(names, ", "))
	}
	return i, nil
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// cause is what is wrong with a file, without its name and what was tried.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// replayFiles opens the files, and says in its errors which one each is about.
func replayFiles(w io.Writer, o replayOptions, c *config.Config, port, fallback int) error {
	file, err := os.Open(o.in)
	if err != nil {
		return fmt.Errorf("%s: cannot be read: %w", o.in, cause(err))
	}
	defer file.Close()
	in, err := pcapport.NewReader(file)
	if err != nil {
		return fmt.Errorf("%s: %w", o.in, err)
	}
	leaving := io.Discard
	if o.out != "" {
		f, err := os.Create(o.out)
		if err != nil {
			return fmt.Errorf("%s: cannot be written: %w", o.out, cause(err))
		}
		defer f.Close() // again, where an error came before
		leaving = f
	}
	n, err := newReplayNode(c, leaving, port, fallback)
	if err != nil {
		return err
	}
	defer n.close()
	out := bufio.NewWriter(w)
	err = n.run(newReplayReport(out, o.output, replayHead{o.config, o.in, n.names[port], n.names[fallback]}), in, o.in)
	if werr := n.out.Close(); werr != nil {
		err = errors.Join(err, fmt.Errorf("%s: cannot be written: %w", o.out, cause(werr)))
	}
	if f, ok := leaving.(*os.File); ok {
		err = errors.Join(err, f.Close())
	}
	return errors.Join(err, out.Flush())
}
