// Package doctor says what of a machine is fast for Causeway, what is not and why, and what keeps it from working. It
// changes nothing, and asks what it may: without root it says what it did not examine.
package doctor

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"causeway/config"
	"causeway/control/node"
	"causeway/xsk"
)

// A Level says how bad a finding is.
type Level string

// The levels.
const (
	OK   Level = "ok"
	Warn Level = "warn" // works, but slower or not as expected
	Fail Level = "fail" // causeway run will not start, or packets will be corrupted
)

// A Finding is one line of the report.
type Finding struct {
	Level Level
	What  string // such as kernel, eth0 mode
	Text  string
	Todo  string // what to do, or ""
}

// report collects findings.
type report struct{ findings []Finding }

func (r *report) add(l Level, what, text, todo string) {
	r.findings = append(r.findings, Finding{l, what, text, todo})
}

// Examine looks at the machine and, with a configuration, at the interfaces and cores that it names.
func Examine(c *config.Config) []Finding {
	r := &report{}
	r.kernel()
	r.rights()
	r.memlock()
	r.tun()
	r.features("")
	if c == nil {
		r.add(OK, "interfaces", "not examined: no configuration was named", "causeway doctor -c FILE")
		return r.findings
	}
	var veths []string
	largest := 0
	for _, cfg := range c.Interfaces {
		ifi, err := xsk.LookupInterface(cfg.Name)
		if err != nil {
			r.add(Fail, cfg.Name, err.Error(), "")
			continue
		}
		r.port(ifi)
		largest = max(largest, ifi.MTU)
		if ifi.Driver == "veth" {
			veths = append(veths, ifi.Name)
		}
	}
	r.veths(veths)
	r.plan(c)
	r.tunnels(c, largest)
	r.state(c)
	r.socket(c.Control.Socket)
	r.listener("metrics", c.Metrics.Listen)
	if c.Analytics != nil {
		r.listener("analytics", c.Analytics.Listen)
	}
	return r.findings
}

// tunnels names those whose packets do not fit any port.
func (r *report) tunnels(c *config.Config, mtu int) {
	for _, t := range c.Tunnels {
		if fits := t.Fits(mtu); mtu > 0 && t.MTU > fits {
			r.add(Warn, "tunnel "+t.Name, fmt.Sprintf("its mtu is %d, and the largest mtu of a port, %d, carries %d: larger packets leave as outer fragments", t.MTU, mtu, fits),
				fmt.Sprintf("mtu: %d, or a larger mtu of the port", fits))
		}
	}
}

// state looks whether sequence numbers and IVs can be kept, where a tunnel has them.
func (r *report) state(c *config.Config) {
	if !slices.ContainsFunc(c.Tunnels, func(t config.Tunnel) bool { return t.Sequence || t.IPsec != nil }) {
		return
	}
	dir := node.StateDir(c)
	there := dir // or the directory in which it would be made
	for _, err := os.Stat(there); os.IsNotExist(err) && there != "/"; _, err = os.Stat(there) {
		there = filepath.Dir(there)
	}
	if err := unix.Access(there, unix.W_OK|unix.X_OK); err != nil {
		r.add(Fail, "state", fmt.Sprintf("node.state_dir %s cannot be written: %s: %v", dir, there, err), "make it writable, or name another")
		return
	}
	switch err := node.ExamineState(c); {
	case errors.Is(err, node.ErrStateInUse):
		r.add(Warn, "state", err.Error()+"; unless that is this node's, run will refuse to start", "")
	case err != nil:
		r.add(Fail, "state", err.Error(), "")
	default:
		r.add(OK, "state", "marks of IVs and sequence numbers are kept in "+dir, "")
	}
}

// socket looks whether the operator's socket can be made.
func (r *report) socket(path string) {
	if err := unix.Access(filepath.Dir(path), unix.W_OK|unix.X_OK); err != nil {
		r.add(Fail, "control socket", fmt.Sprintf("%s cannot be made: %s: %v", path, filepath.Dir(path), err),
			"make the directory, or name another path: control: {socket: PATH}")
		return
	}
	r.add(OK, "control socket", path, "")
}

// listener looks whether the port of a listener is free: by taking it for a moment. what names its section.
func (r *report) listener(what string, at netip.AddrPort) {
	if !at.IsValid() {
		return
	}
	another := what + ": {listen: ANOTHER}"
	l, err := net.Listen("tcp", at.String())
	switch {
	case err == nil:
		l.Close()
		r.add(OK, what, at.String()+" is free", "")
	case errors.Is(err, unix.EADDRINUSE):
		r.add(Warn, what, at.String()+" is in use; unless it is by a running causeway, run will refuse to start", another)
	default:
		r.add(Fail, what, err.Error(), another)
	}
}

func (r *report) kernel() {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		r.add(Warn, "kernel", err.Error(), "")
		return
	}
	r.add(OK, "kernel", unix.ByteSliceToString(u.Sysname[:])+" "+unix.ByteSliceToString(u.Release[:]), "")
}

// needed are the rights without which `causeway run` does not start.
var needed = []struct {
	bit     int
	name    string
	purpose string
}{
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", "the steering program, the TUN device"},
	{unix.CAP_NET_RAW, "CAP_NET_RAW", "AF_XDP and ICMP sockets"},
	{unix.CAP_BPF, "CAP_BPF", "the steering program"},
}

func (r *report) rights() {
	have, err := effective()
	if err != nil {
		r.add(Warn, "rights", err.Error(), "")
		return
	}
	var lacking []string
	for _, n := range needed {
		if have&(1<<n.bit) == 0 {
			lacking = append(lacking, fmt.Sprintf("%s (%s)", n.name, n.purpose))
		}
	}
	if len(lacking) == 0 {
		r.add(OK, "rights", "CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF", "")
		return
	}
	r.add(Fail, "rights", "lacking: "+strings.Join(lacking, ", "), "run as root, or as the systemd unit does")
}

// effective reads the process's effective capabilities.
func effective() (uint64, error) {
	hex, err := procField("/proc/self/status", "CapEff:")
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(hex, 16, 64)
}

// procField returns the first word behind a name in a file of lines.
func procField(path, name string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			if words := strings.Fields(rest); len(words) > 0 {
				return words[0], nil
			}
		}
	}
	return "", fmt.Errorf("%s has no %s", path, name)
}

// memlock looks whether the packet memory can be pinned: with CAP_IPC_LOCK always, else within the limit.
func (r *report) memlock() {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &lim); err != nil {
		r.add(Warn, "locked memory", err.Error(), "")
		return
	}
	const plenty = 1 << 30
	have, err := effective()
	switch {
	case err == nil && have&(1<<unix.CAP_IPC_LOCK) != 0:
		r.add(OK, "locked memory", "unlimited by CAP_IPC_LOCK", "")
	case lim.Cur >= plenty:
		r.add(OK, "locked memory", "the limit is high enough", "")
	default:
		r.add(Warn, "locked memory", fmt.Sprintf("limited to %d KiB; a worker with one queue of two ports pins 32 MiB", lim.Cur/1024),
			"ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit")
	}
}

func (r *report) tun() {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		r.add(Fail, "tun", "/dev/net/tun: "+err.Error(), "modprobe tun; in a container, pass the device")
		return
	}
	unix.Close(fd)
	r.add(OK, "tun", "/dev/net/tun can be opened", "")
}

// optional are the features without which packets still flow.
var optional = map[string]bool{
	"need-wakeup": true, "busy-poll": true, "send-budget": true, "huge-pages": true, "multi-buffer": true, "native-xdp": true, "zero-copy": true,
}

// features prints the capability table of the kernel, or that of an interface's driver.
func (r *report) features(ifname string) {
	table, err := xsk.Probe(ifname)
	if err != nil {
		r.add(Fail, ifname, err.Error(), "")
		return
	}
	kernel := map[string]bool{}
	if ifname != "" {
		if general, err := xsk.Probe(""); err == nil {
			for _, c := range general {
				kernel[c.Name] = true
			}
		}
	}
	var unasked []string
	for _, c := range table {
		if kernel[c.Name] {
			continue // printed before
		}
		what := strings.TrimSpace(ifname + " " + c.Name)
		switch {
		case c.Supported:
			r.add(OK, what, c.Purpose, "")
		case errors.Is(c.Err, xsk.ErrNotSupported) && !optional[c.Name]:
			r.add(Fail, what, fmt.Sprintf("%s: %v", c.Purpose, c.Err), "a newer kernel is needed")
		case errors.Is(c.Err, xsk.ErrNotSupported):
			r.add(Warn, what, fmt.Sprintf("there would be: %s; %v", c.Purpose, c.Err), "")
		case errors.Is(c.Err, unix.EPERM), errors.Is(c.Err, unix.EACCES):
			unasked = append(unasked, c.Name)
		case errors.Is(c.Err, unix.ENOMEM) && c.Name == "huge-pages":
			r.add(Warn, what, "none reserved; there would be: "+c.Purpose, "sysctl vm.nr_hugepages=N")
		default:
			r.add(Warn, what, fmt.Sprintf("for %s; %v", c.Purpose, c.Err), "")
		}
	}
	if len(unasked) > 0 {
		r.add(Warn, strings.TrimSpace(ifname+" features"), "not examined: needs root (to ask an AF_XDP socket for "+strings.Join(unasked, ", ")+")", "")
	}
}

// plan tells which queues go to which worker.
func (r *report) plan(c *config.Config) {
	p, err := node.PlanOf(c)
	if err != nil {
		if !r.said(err.Error()) {
			r.add(Fail, "workers", err.Error(), "")
		}
		return
	}
	for i, w := range p.Workers {
		var queues []string
		for _, q := range w.Queues {
			queues = append(queues, fmt.Sprintf("%s/%d", c.Interfaces[q.Port].Name, q.Queue))
		}
		r.add(OK, fmt.Sprintf("worker %d", i), fmt.Sprintf("core %d, queues %s", w.CPU, strings.Join(queues, " ")), "")
	}
	if len(p.Idle) > 0 {
		r.add(Warn, "workers", fmt.Sprintf("no queue is left for the cores %v of workers.cpus", p.Idle), "ethtool -L IFACE combined N")
	}
	r.governor(p)
}

// said reports whether a failure is in the report already: no plan can be made without an interface that is missing.
func (r *report) said(text string) bool {
	return slices.ContainsFunc(r.findings, func(f Finding) bool { return f.Level == Fail && strings.HasSuffix(text, f.Text) })
}

// governor warns of cores that change their clock with the load, which a worker that sleeps between batches suffers from.
func (r *report) governor(p node.Plan) {
	for _, w := range p.Workers {
		text, err := os.ReadFile(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor", w.CPU))
		if name := strings.TrimSpace(string(text)); err == nil && name != "performance" {
			r.add(Warn, fmt.Sprintf("core %d", w.CPU), "its clock follows the load: governor "+name, "cpupower frequency-set -g performance")
		}
	}
}
