package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Load reads and parses the file at path. Its errors are Errors, also when the
// file cannot be read.
func Load(path string) (*Config, error) {
	data, open, err := readFile(path)
	if err != nil {
		var why *fs.PathError
		if errors.As(err, &why) {
			err = why.Err
		}
		return nil, Errors{{File: path, Message: "cannot be read: " + err.Error()}}
	}
	return parse(path, data, open, nil)
}

// AnalyticsOf is the section analytics of a file in which there are mistakes, as far as it is right: so the files that it names can be
// looked at all the same. nil: there is none, or the file cannot be read.
func AnalyticsOf(path string) *Analytics {
	data, _, err := readFile(path)
	if _, deep := nestedTooDeep(data); err != nil || deep {
		return nil
	}
	d := &decoder{file: path, where: map[string]position{}}
	c := &Config{where: d.where}
	if root, ok := d.document(data); ok {
		d.config(root, c, false)
	}
	return c.Analytics
}

// readFile reads a regular file of a bounded size. A daemon reads its file again while it runs: a pipe in its place
// would hold it up for ever, and a device or somebody's log would fill its memory.
// open says that all users of the machine may read it.
func readFile(path string) (data []byte, open bool, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, false, err
	case info.IsDir():
		return nil, false, unix.EISDIR
	case !info.Mode().IsRegular():
		return nil, false, errors.New("it is not a regular file")
	case info.Size() > maxFile:
		return nil, false, fmt.Errorf("it has %d MiB, more than the %d that a configuration may have", info.Size()>>20, maxFile>>20)
	}
	data, err = io.ReadAll(io.LimitReader(f, maxFile))
	return data, info.Mode().Perm()&0o004 != 0, err
}

// Limits of a file. A hundred thousand tunnels take some 30 MiB; nothing of the schema is nested deeper than five.
const (
	maxFile  = 64 << 20
	maxDepth = 64
)

// nestedTooDeep returns the line of data that opens more than maxDepth brackets, or as many lists or levels of
// indentation in one line. The YAML package takes time and memory by the square of the depth. Brackets in quoted
// text and in comments count too, which no real file notices.
func nestedTooDeep(data []byte) (line int, deep bool) {
	brackets, dashes, indent, start := 0, 0, 0, true
	line = 1
	for _, c := range data {
		switch c {
		case '\n':
			line++
			dashes, indent, start = 0, 0, true
			continue
		case '[', '{':
			brackets++
		case ']', '}':
			brackets = max(brackets-1, 0)
		case '-', '?':
			if start {
				dashes++
			}
		case ' ', '\t':
			if start {
				indent++
			}
			continue
		}
		start = start && (c == '-' || c == '?')
		if brackets > maxDepth || dashes > maxDepth || indent > 4*maxDepth {
			return line, true
		}
	}
	return 0, false
}

// Parse reads the configuration in data. The name stands for the file in
// errors. The error is nil or of type Errors and then holds every mistake that
// was found; the configuration is nil in that case.
func Parse(name string, data []byte) (*Config, error) { return parse(name, data, false, nil) }

// parse reads a file, which all users of the machine may read if open says so, and a fleet's document beside it if there is one.
func parse(name string, data []byte, open bool, fleet *Fleet) (*Config, error) {
	d := &decoder{file: name, where: map[string]position{}}
	c := &Config{File: name, where: d.where, open: open, text: data}
	if line, deep := nestedTooDeep(data); deep {
		return nil, Errors{{File: name, Line: line, Column: 1, Message: "is nested too deeply for a configuration: at most 64 levels are read"}}
	}
	if root, ok := d.document(data); ok {
		d.config(root, c, fleet != nil)
		if fleet == nil || d.join(fleet, c) {
			d.check(c)
		}
		c.inline = d.inline
	}
	if len(d.errs) > 0 {
		return nil, d.errs.sorted()
	}
	return c, nil
}

// Config is one configuration file with all defaults filled in. It is not
// changed after Parse returned it, so goroutines may share it.
type Config struct {
	// File is the name given to Parse; it begins every error and warning.
	File string

	Node       Node
	Interfaces []Interface
	Workers    Workers
	Steering   Steering
	Notify     Notify
	Endpoints  []netip.Addr
	Accounts   []Account
	Tunnels    []Tunnel
	Routes     []Route
	Metrics    Metrics
	Control    Control
	Cluster    *Cluster   // nil: this node alone
	Analytics  *Analytics // nil: nothing is kept of the traffic

	// where remembers the position of each value by its path, for warnings
	// and for errors that name a second place.
	where map[string]position

	open   bool   // all users of the machine may read the file
	text   []byte // of the file
	inline string // where the first associations stand that have a key in the file itself; "": nowhere
}

// Node names this server. Name is the host name unless the file says
// otherwise; the other fields may be empty.
type Node struct {
	Name       string
	Address    netip.Addr // unicast; the zero Addr when the file names none
	Datacenter string
	Region     string
	StateDir   string
}

// Mode is how an interface's queues are bound to AF_XDP sockets.
type Mode uint8

// The modes of an interface. ModeAuto takes the fastest that the driver has.
const (
	ModeAuto Mode = iota
	ModeZeroCopy
	ModeCopy
	ModeGeneric
)

var modeWords = []string{"auto", "zero-copy", "copy", "generic"}

// String returns the word that the configuration file uses.
func (m Mode) String() string { return modeWords[m] }

// Interface is a network interface that the workers own.
type Interface struct {
	Name   string
	Queues []int // in the order of the file; nil means all queues
	Mode   Mode
}

// Workers says which cores forward packets.
type Workers struct {
	CPUs     []int // one worker each; nil lets the daemon choose
	BusyPoll bool
}

// Account is a customer with its own address space. Every account that a
// tunnel belongs to has an entry, whether or not the file lists accounts.
type Account struct {
	Name string
	// Peers are the other accounts whose tunnel prefixes this account's
	// tunnels can reach. Peering is mutual: each of the two names the other.
	Peers []string
}

// TunnelType is the encapsulation of a tunnel.
type TunnelType uint8

// The types of tunnels.
const (
	GRE TunnelType = iota
	IPsecESP
)

// String returns the word that the configuration file uses.
func (t TunnelType) String() string { return [...]string{"gre", "ipsec"}[t] }

// ClampMode is what happens to the MSS option of TCP SYN segments.
type ClampMode uint8

// ClampAuto lowers the MSS to what the tunnel's MTU leaves, ClampOff leaves it
// alone, ClampBytes lowers it to a number given in the file.
const (
	ClampAuto ClampMode = iota
	ClampOff
	ClampBytes
)

// MSSClamp is a tunnel's mss_clamp. Tunnel.MSS4 and Tunnel.MSS6 give the
// resulting figures.
type MSSClamp struct {
	Mode  ClampMode
	Bytes int // with ClampBytes: the largest TCP payload of a segment
}

// DFMode is what becomes of an inner IPv4 packet with the don't-fragment bit
// that is larger than the tunnel's MTU.
type DFMode uint8

// DFHonour answers with an ICMP error, DFClear fragments regardless.
const (
	DFHonour DFMode = iota
	DFClear
)

var dfWords = []string{"honour", "clear"}

// String returns the word that the configuration file uses.
func (m DFMode) String() string { return dfWords[m] }

// Tunnel is one tunnel between an endpoint of the fleet and a customer's
// router.
type Tunnel struct {
	Name    string
	Account string
	Type    TunnelType

	// Endpoint is one of Config.Endpoints, CustomerEndpoint the outer address
	// of the customer's router. Both are of one family. With IKE the second may
	// be the zero Addr: then the peer's identity says whose tunnel it is.
	Endpoint         netip.Addr
	CustomerEndpoint netip.Addr

	// InterfaceAddress is our address inside the tunnel with its /31 or /30;
	// InterfaceAddress6 the same with a /127, or the zero Prefix. Peer4 and
	// Peer6 give the customer's side.
	InterfaceAddress  netip.Prefix
	InterfaceAddress6 netip.Prefix

	MTU  int   // largest inner packet in bytes, from its IP header on
	PMTU bool  // believe ICMP errors about our outer packets
	TTL  uint8 // of the outer header

	HasKey   bool
	Key      uint32 // RFC 2890; meaningful with HasKey
	Checksum bool   // send checksums (RFC 2784); received ones are always verified
	Sequence bool   // send sequence numbers (RFC 2890)

	IPsec *IPsec // of type ipsec alone

	MSSClamp MSSClamp
	DF       DFMode

	HealthCheck *HealthCheck // nil: the tunnel is not probed
	BFD         *BFD         // nil: it is not spoken

	// KernelInterface is the name of the device that the host has for the
	// tunnel, by which its routing daemons speak with the customer's router;
	// "": it has none.
	KernelInterface string

	// Sampling is one packet in how many that is sampled; 0: as analytics.sampling says; SamplingOff: none.
	Sampling uint32

	// Prefixes may appear as inner source. Config.EffectiveRoutes says how
	// they lead to tunnels.
	Prefixes []netip.Prefix
}

// Route is a static route. Exactly one of Tunnel and NextHop is set.
type Route struct {
	Prefix netip.Prefix
	// Account is the table that the route belongs to: the account's own, or
	// the Internet table when empty. A route to a tunnel is always the
	// account's; if its prefix is public (see Public), it is in the Internet
	// table too.
	Account   string
	Tunnel    string     // name of the tunnel
	NextHop   netip.Addr // a router on the link of Interface
	Interface string
	Priority  uint32 // the lower wins
	Weight    int    // share of flows among routes of equal priority, 1 to 256
	Scope     Scope  // nodes that have the route

	// Uncovered is what EffectiveRoutes makes of a prefix that has routes in other places alone: packets to it are dropped. Tunnel and
	// NextHop are those of one of them.
	Uncovered bool

	// Unlearned is what it makes of a prefix of a tunnel with a device, whose
	// routes are to be learned: packets to what is not are dropped.
	Unlearned bool
}

// Steering says how flows follow routes that change.
type Steering struct {
	// Stay is how long a flow may send nothing and still stays with the
	// tunnel, or the router, that has carried it, when another one of the same
	// priority comes back, or weights change. 0: flows move at once.
	Stay time.Duration
}

// DefaultStay is Steering.Stay of a file that says nothing.
const DefaultStay = time.Minute

// Metrics is where Prometheus metrics are served.
type Metrics struct {
	Listen netip.AddrPort // not valid: metrics are not served
}

// Control is the operator's command line's way to the daemon.
type Control struct {
	Socket string // absolute path of a Unix socket
}

// DefaultSocket is Control.Socket where the file names none.
const DefaultSocket = "/run/causeway.sock"
