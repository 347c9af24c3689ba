package hosts

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// Capture is a tcpdump that is writing what an interface carries to a file.
type Capture struct {
	process *Process
	path    string
}

// Capture begins to record an interface; when it returns, packets are being seen. The filter is
// tcpdump's, empty for all. Frames that an XDP program takes are not seen on the interface that it
// is attached to: record at the other end of the link.
func (h *Host) Capture(ifname, filter string) *Capture {
	h.net.t.Helper()
	need(h.net.t, "tcpdump", "tcpdump")
	file, err := os.CreateTemp(h.net.dir, h.Name+"-"+ifname+"-*.pcap")
	if err != nil {
		h.net.t.Fatal(err)
	}
	file.Close()
	// Immediate and unbuffered, so that the file is never far behind the wire; 32 MiB for bursts.
	p := h.Start("tcpdump", "--immediate-mode", "-U", "-B", "32768", "-Z", "root", "-n", "-s", "0",
		"-i", ifname, "-w", file.Name(), filter)
	p.WaitLog("listening on", 10*time.Second)
	return &Capture{process: p, path: file.Name()}
}

var kernelDrops = regexp.MustCompile(`(\d+) packets? dropped by kernel`)

// Stop ends the recording once nothing more is being written, and returns the file's path. A
// recording with gaps fails the test: it cannot judge.
func (c *Capture) Stop() string {
	t := c.process.t
	t.Helper()
	const quiet, most = 150 * time.Millisecond, 3 * time.Second // some wires are never quiet
	size, since, end := int64(-1), time.Now(), time.Now().Add(most)
	for time.Since(since) < quiet && time.Now().Before(end) {
		info, err := os.Stat(c.path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() != size {
			size, since = info.Size(), time.Now()
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.process.Signal(syscall.SIGINT)
	if err := c.process.Wait(10 * time.Second); err != nil {
		t.Fatalf("tcpdump: %v\n%s", err, c.process.Log())
	}
	if m := kernelDrops.FindStringSubmatch(c.process.Log()); m == nil || m[1] != "0" {
		t.Errorf("the recording has gaps: %s", c.process.Log())
	}
	return c.path
}

// Tshark decodes a recording: one row for each packet that the display filter takes (empty for
// all), one column for each field. A field that occurs more than once in a packet, such as ip.src
// of a tunnel packet, holds all values, outermost first, joined by commas. Checksums are verified:
// filter or print ip.checksum.status, tcp.checksum.status and so on.
func (n *Net) Tshark(pcap, displayFilter string, fields ...string) [][]string {
	n.t.Helper()
	return n.TsharkWith(nil, pcap, displayFilter, fields...)
}

// TsharkWith is Tshark with further options, such as the keys of what is encrypted.
func (n *Net) TsharkWith(options []string, pcap, displayFilter string, fields ...string) [][]string {
	n.t.Helper()
	need(n.t, "tshark", "tshark")
	args := []string{"-r", pcap, "-n", "-T", "fields", "-E", "separator=/t", "-E", "aggregator=,",
		"-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"}
	args = append(args, options...)
	if displayFilter != "" {
		args = append(args, "-Y", displayFilter)
	}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	out, err := exec.Command("tshark", args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			out = exit.Stderr
		}
		n.t.Fatalf("tshark %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	var rows [][]string
	for line := range strings.Lines(string(out)) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	return rows
}

// Scapy runs a Python script in the host, with everything of scapy imported and quiet, and returns
// what it printed. A script that raises an exception ends the test.
func (h *Host) Scapy(script string) string {
	h.net.t.Helper()
	// Debian's interpreter by its path: another one first in PATH would not see Debian's scapy.
	need(h.net.t, "/usr/bin/scapy3", "python3-scapy")
	return h.MustRun("/usr/bin/python3", "-c", "from scapy.all import *\nconf.verb = 0\n"+script)
}
