package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"causeway/control/api"
	"causeway/control/node"
	"causeway/pipeline/pcapport"
)

const filterHelp = `
The filter is in tcpdump's language, with conditions of a tunnel node's own; without one all packets match:

  host A, net P/N, port N, portrange N-M   of source or destination; "src", "dst", "src or dst" and "src and dst" in
                                           front say which; ip, ip6, and before ports tcp, udp, sctp restrict them
  ip, ip6, tcp, udp, sctp, icmp, icmp6, gre, esp, ah, proto N, ip proto N, ip6 proto N
  less N, greater N                        the frame has at most, or at least, so many bytes
  tunnel NAME, account NAME                the packet came out of it ("src"), goes into it ("dst"), or either
  forwarded, delivered, punted, dropped    what became of it
  reason LABEL                             it was dropped for that; the labels are those of "causeway show drops"

"not", "and", "or" and parentheses join them; "and" and "or" are taken from left to right, as in tcpdump. A condition
about addresses, ports and protocols holds if it does for the packet outside or for the one inside, so "host
198.18.5.10" finds a customer's packet in its tunnel. Names of hosts are not looked up.

The workers look at 200,000 packets a second at most, and hand over 10,000 that match; at the end it is said of how many.
A packet that is not looked at is forwarded like any other. One capture or trace at a time is possible.`

const captureHelp = `Write packets of the running daemon to a pcapng file, for wireshark and tshark: each as it came, and what came out of a
tunnel as a packet of its own, on the interface "decapsulated". Both have one comment, which says where the packet came
from, where it went, or why it was dropped. What the node makes itself, answers and ICMP errors, is not there.

A CAPTURE SHOWS CUSTOMERS' TRAFFIC, AND WHAT CAME ENCRYPTED IN CLEAR. The file is for its owner alone (mode 600).
Keys are in no capture.
` + filterHelp + `

  causeway capture -w all.pcapng
  causeway capture tunnel cust-a and tcp port 443 -w a.pcapng --packets 100
  causeway capture dropped and not reason no_route -w - | tshark -r -`

const traceHelp = `Print the way of packets through the running daemon: the stages that each came through, and what was decided there.
Stages that a packet did not come to are not printed.

A TRACE SHOWS CUSTOMERS' ADDRESSES AND PORTS, also of what came encrypted.
` + filterHelp + `

  causeway trace dropped
  causeway trace host 198.18.5.10 and icmp --packets 2
  causeway trace src tunnel cust-a and dst tunnel cust-b -o json`

// captureOptions are what the command line says.
type captureOptions struct {
	socket, file, output string
	request              api.CaptureRequest
}

func (o *captureOptions) flags(cmd *cobra.Command) {
	socketFlag(cmd, &o.socket)
	cmd.Flags().IntVar(&o.request.Packets, "packets", api.DefaultCapturePackets, fmt.Sprintf("end after `N` packets, at most %d", api.MaxCapturePackets))
	cmd.Flags().IntVar(&o.request.Seconds, "seconds", api.DefaultCaptureSeconds, fmt.Sprintf("end after `N` seconds, at most %d", api.MaxCaptureSeconds))
}

// check refuses limits that are none.
func (o *captureOptions) check(args []string) error {
	switch {
	case o.request.Packets < 1 || o.request.Packets > api.MaxCapturePackets:
		return fmt.Errorf("packets %d: 1 to %d are possible", o.request.Packets, api.MaxCapturePackets)
	case o.request.Seconds < 1 || o.request.Seconds > api.MaxCaptureSeconds:
		return fmt.Errorf("seconds %d: 1 to %d are possible", o.request.Seconds, api.MaxCaptureSeconds)
	case o.request.Snaplen < 0:
		return fmt.Errorf("snaplen %d: a number of bytes, or 0 for all", o.request.Snaplen)
	}
	o.request.Filter = strings.Join(args, " ")
	o.request.By = fmt.Sprintf("process %d", os.Getpid())
	return nil
}

func captureCommand() *cobra.Command {
	var o captureOptions
	cmd := &cobra.Command{
		Use:   "capture [FILTER] -w FILE",
		Short: "write packets of the running daemon, with what became of them, to a pcapng file",
		Long:  captureHelp,
		Args:  cobra.ArbitraryArgs, ValidArgsFunction: completeFilter,
	}
	o.flags(cmd)
	cmd.Flags().StringVarP(&o.file, "write", "w", "", "the pcapng `FILE`; - is standard output")
	cmd.Flags().IntVar(&o.request.Snaplen, "snaplen", 0, "keep `N` bytes of each packet; 0 keeps all")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if o.file == "" {
			return errors.New("capture wants a file: -w FILE, or -w - for standard output; `causeway trace` prints packets")
		}
		if err := o.check(args); err != nil {
			return err
		}
		o.request.Bytes = true
		f := &captureFile{name: o.file, out: cmd.OutOrStdout(), interfaces: map[string]int{}}
		return f.close(o.capture(cmd.ErrOrStderr(), f.packet, f.open))
	}
	return cmd
}

// capture calls packet for each packet, after begun. It returns when the capture has ended, or is interrupted, which is no error.
func (o *captureOptions) capture(say io.Writer, packet func(*api.CapturedPacket) error, begun func() error) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var last api.CaptureCounts
	why, shown := "it was interrupted", uint64(0)
	err := api.NewClient(o.socket).Capture(ctx, o.request, func(e api.CaptureEvent) error {
		switch {
		case e.Begun != nil:
			fmt.Fprintf(say, "at most %s, for %d s\n", count(e.Begun.Packets, "packet"), e.Begun.Seconds)
			return begun()
		case e.Packet != nil:
			shown++
			return packet(e.Packet)
		case e.Counts != nil:
			last = *e.Counts
		case e.Ended != nil:
			last, why = e.Ended.Counts, fmt.Sprintf("after %d s", o.request.Seconds)
			if e.Ended.Why == "packets" {
				why = "these were as many as were wanted"
			}
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		return failure{err}
	}
	last.Shown = shown
	fmt.Fprintln(say, endWords(why, last))
	return nil
}

// endWords says what a capture has not shown.
func endWords(why string, c api.CaptureCounts) string {
	s := fmt.Sprintf("%s: %s; of %d that came, %d were looked at", count(int(c.Shown), "packet"), why, max(c.Seen, c.Shown), max(c.Looked, c.Shown))
	if c.Matched > c.Shown {
		s += fmt.Sprintf(", and %d matched", c.Matched)
	}
	return s
}

// captureFile is what is written. It is made when the capture has begun: one that is refused leaves the file alone.
type captureFile struct {
	name       string
	out        io.Writer // standard output
	file       *os.File
	ng         *pcapport.NGWriter
	interfaces map[string]int
	packets    int
	problem    error // with the file
}

func (f *captureFile) open() error {
	w := f.out
	if f.name != "-" {
		file, err := os.OpenFile(f.name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return f.broken(err)
		}
		f.file, w = file, file
	}
	var err error
	f.ng, err = pcapport.NewNGWriter(w, "causeway "+version())
	return f.broken(err)
}

// packet writes one as it came, and what came out of a tunnel.
func (f *captureFile) packet(p *api.CapturedPacket) error {
	comment := packetWords(p)
	name, description, link := p.Interface, "frames as they came", uint16(pcapport.LinkEthernet)
	if p.Origin != "port" {
		name, description, link = p.Origin, "packets of the node's own", pcapport.LinkRaw
	}
	if err := f.put(p, name, description, link, p.Frame, p.Length, comment); err != nil {
		return err
	}
	f.packets++
	if p.InnerLength == 0 {
		return nil
	}
	return f.put(p, "decapsulated", "packets that came out of tunnels", pcapport.LinkRaw, p.Inner, p.InnerLength, comment)
}

func (f *captureFile) put(p *api.CapturedPacket, name, description string, link uint16, data []byte, length int, comment string) error {
	i, ok := f.interfaces[name]
	if !ok {
		var err error
		if i, err = f.ng.Interface(name, description, link); err != nil {
			return f.broken(err)
		}
		f.interfaces[name] = i
	}
	return f.broken(f.ng.Packet(p.Time, i, data, length, uint64(p.Number), comment))
}

func (f *captureFile) broken(err error) error {
	if err == nil {
		return nil
	}
	f.problem = fmt.Errorf("%s: cannot be written: %w", f.name, cause(err))
	if f.packets > 0 {
		f.problem = fmt.Errorf("%w; %s are in it", f.problem, count(f.packets, "whole packet"))
	}
	return f.problem
}

// close closes the file and returns what went wrong first.
func (f *captureFile) close(err error) error {
	if f.file != nil {
		if e := f.file.Close(); e != nil && f.problem == nil && err == nil {
			err = failure{f.broken(e)}
		}
	}
	return err
}

// packetWords is the comment of a packet and of what came out of a tunnel in it.
func packetWords(p *api.CapturedPacket) string {
	w := []string{fmt.Sprintf("packet %d of this capture: %s", p.Number, map[string]string{"port": "came by " + p.Interface,
		"host": "sent by the host", "control": "made by the control side"}[p.Origin])}
	if p.FromTunnel != "" {
		w = append(w, fmt.Sprintf("came out of tunnel %s (account %s)", p.FromTunnel, p.FromAccount))
	}
	if p.IntoTunnel != "" {
		w = append(w, fmt.Sprintf("into tunnel %s (account %s)", p.IntoTunnel, p.IntoAccount))
	}
	switch {
	case p.Drop != nil:
		w = append(w, node.DropWords(p.Drop))
	case p.OutInterface != "":
		w = append(w, p.Verdict+" by "+p.OutInterface)
	default:
		w = append(w, p.Verdict)
	}
	return strings.Join(w, ", ")
}

// filterWords are those that a filter may begin a condition with.
var filterWords = []string{"host", "net", "port", "portrange", "src", "dst", "ip", "ip6", "tcp", "udp", "sctp", "icmp", "icmp6", "gre", "esp", "ah", "proto",
	"less", "greater", "tunnel", "account", "forwarded", "delivered", "punted", "dropped", "reason", "not", "and", "or"}

// completeFilter offers the words of filters, and names of tunnels and accounts where the daemon can be asked.
func completeFilter(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return filterWords, cobra.ShellCompDirectiveNoFileComp
	}
	socket, _ := cmd.Flags().GetString("socket")
	var names []string
	switch args[len(args)-1] {
	case "tunnel", "account":
		var tunnels []api.Tunnel
		if api.NewClient(socket).Show("tunnels", &tunnels) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for _, t := range tunnels {
			names = append(names, map[string]string{"tunnel": t.Name, "account": t.Account}[args[len(args)-1]])
		}
	case "reason":
		var drops []api.Drop
		if api.NewClient(socket).Show("drops", &drops) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for _, d := range drops {
			names = append(names, d.Reason)
		}
	default:
		names = slices.Clone(filterWords)
	}
	slices.Sort(names)
	return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
}
