package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A dpdkProgram is a running program of DPDK with two ports, of which port 0 receives and port 1 sends. It runs in a
// directory of its own, which has its telemetry socket, and shares nothing with others.
type dpdkProgram struct {
	ctx   context.Context
	cmd   *exec.Cmd
	stdin io.Closer // some end when there is nothing to read from
	out   bytes.Buffer
	ended chan error
	conn  net.Conn
}

// hugePages is where the kernel says how many pages of 2 MiB nobody has taken.
const hugePages = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"

// dpdkMiB is the memory of a program.
const dpdkMiB = 512

// dpdkMemory is how a program gets its memory where that many huge pages are free, and says which way it is.
func dpdkMemory(free int) (arguments []string, note string) {
	size := strconv.Itoa(dpdkMiB)
	if 2*free >= dpdkMiB {
		return []string{"-m", size, "--in-memory"}, "on huge pages"
	}
	return []string{"-m", size, "--no-huge", "--no-shconf"}, "without huge pages, with which it is faster (sysctl vm.nr_hugepages=300)"
}

func freeHugePages() int {
	b, _ := os.ReadFile(hugePages) // a kernel without has none
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

// startDPDK starts a program; the arguments are those of DPDK's own layer, "--" and its own. It ends with ctx, and with the
// calling thread, which the caller keeps until stop.
func startDPDK(ctx context.Context, dir, path string, arguments ...string) (p *dpdkProgram, err error) {
	p = &dpdkProgram{ctx: ctx, ended: make(chan error, 1)}
	memory, _ := dpdkMemory(freeHugePages())
	p.cmd = exec.CommandContext(ctx, path, append(append(memory, "--no-pci", "--file-prefix", "bench"), arguments...)...)
	p.cmd.Dir, p.cmd.Env = dir, append(os.Environ(), "RUNTIME_DIRECTORY="+dir)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, p.stdin.Close())
	}
	go func() { p.ended <- p.cmd.Wait() }()
	if err := p.connect(filepath.Join(dir, "dpdk", "bench", "dpdk_telemetry.v2")); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// dpdkStart is the longest that a program may take until it sends packets.
const dpdkStart = 20 * time.Second

// connect waits for the telemetry socket.
func (p *dpdkProgram) connect(socket string) error {
	return p.await("it has no telemetry socket", func() (bool, error) {
		conn, err := net.Dial("unixpacket", socket)
		if err != nil {
			return false, nil
		}
		p.conn = conn
		_, err = p.answer() // which greets
		return true, err
	})
}

// await asks again and again, until something is so, the program has ended or it takes too long.
func (p *dpdkProgram) await(otherwise string, so func() (bool, error)) error {
	for deadline := time.Now().Add(dpdkStart); time.Now().Before(deadline); {
		if yes, err := so(); yes || err != nil {
			return err
		}
		if err := p.sleep(20 * time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s: %s after %v", p.name(), otherwise, dpdkStart)
}

func (p *dpdkProgram) name() string { return filepath.Base(p.cmd.Path) }

func (p *dpdkProgram) sleep(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-p.ctx.Done():
		return p.ctx.Err()
	case err := <-p.ended:
		p.ended <- err // for stop
		return fmt.Errorf("%s ended by itself: %w: %s", p.name(), orStatus0(err), complaint(p.out.Bytes()))
	}
}

// orStatus0 is err, or what stands for it when there is none.
func orStatus0(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// complaint is the line of a program's output that says why it ended.
func complaint(out []byte) string {
	for line := range strings.Lines(string(out)) {
		if _, cause, ok := strings.Cut(line, "Cause: "); ok {
			return strings.TrimSpace(cause)
		}
	}
	return lastLine(out)
}

// answer reads one message of the telemetry socket.
func (p *dpdkProgram) answer() ([]byte, error) {
	b := make([]byte, 1<<16)
	if err := p.conn.SetReadDeadline(time.Now().Add(dpdkStart)); err != nil {
		return nil, err
	}
	n, err := p.conn.Read(b)
	if err != nil {
		return nil, fmt.Errorf("telemetry of %s: %w", p.name(), err)
	}
	return b[:n], nil
}

// portStats are the packets that a port has received and sent.
type portStats struct {
	In  uint64 `json:"ipackets"`
	Out uint64 `json:"opackets"`
}

func (p *dpdkProgram) port(n int) (portStats, error) {
	if _, err := fmt.Fprintf(p.conn, "/ethdev/stats,%d", n); err != nil {
		return portStats{}, fmt.Errorf("telemetry of %s: %w", p.name(), err)
	}
	b, err := p.answer()
	if err != nil {
		return portStats{}, err
	}
	return parsePortStats(b)
}

// parsePortStats reads what telemetry says of a port; one that is not there yet has sent nothing.
func parsePortStats(b []byte) (portStats, error) {
	var reply map[string]*portStats
	if err := json.Unmarshal(b, &reply); err != nil {
		return portStats{}, fmt.Errorf("telemetry says %q: %w", b, err)
	}
	s, ok := reply["/ethdev/stats"]
	if !ok {
		return portStats{}, fmt.Errorf("telemetry says %q, which has no /ethdev/stats", b)
	}
	if s == nil {
		return portStats{}, nil
	}
	return *s, nil
}

// awaitSent returns when port 1 has sent that many packets.
func (p *dpdkProgram) awaitSent(n uint64) error {
	return p.await(fmt.Sprintf("it has not sent %d packets", n), func() (bool, error) {
		s, err := p.port(1)
		return s.Out >= n, err
	})
}

// forwarded is what a program has done at one time.
type forwarded struct {
	at      time.Time
	in, out uint64
}

func (p *dpdkProgram) forwarded() (forwarded, error) {
	in, errIn := p.port(0)
	out, errOut := p.port(1)
	return forwarded{time.Now(), in.In, out.Out}, errors.Join(errIn, errOut)
}

// windows returns the ns per packet that left, in each of n windows in turn.
func (p *dpdkProgram) windows(n int, window time.Duration) (ns []float64, err error) {
	if err := p.awaitSent(1); err != nil {
		return nil, err
	}
	if err := p.sleep(window); err != nil { // caches and clocks settle
		return nil, err
	}
	first, err := p.forwarded()
	if err != nil {
		return nil, err
	}
	last := first
	for range n {
		if err := p.sleep(window); err != nil {
			return nil, err
		}
		now, err := p.forwarded()
		if err != nil {
			return nil, err
		}
		ns = append(ns, float64(now.at.Sub(last.at).Nanoseconds())/float64(max(now.out-last.out, 1)))
		last = now
	}
	return ns, lost(last.in-first.in, last.out-first.out)
}

// lost is an error when packets were dropped: their time is not that of forwarding. The two ports are not read at the very
// same time.
func lost(in, out uint64) error {
	if out == 0 || float64(out) < 0.99*float64(in) {
		return fmt.Errorf("dropped packets: %d of %d came out", out, in)
	}
	return nil
}

// stop ends the program. That it was told to is no error.
func (p *dpdkProgram) stop() error {
	if p.conn != nil {
		_ = p.conn.Close()
	}
	_ = p.cmd.Process.Signal(os.Interrupt) // an error says that it has ended already
	kill := time.AfterFunc(5*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	<-p.ended
	_ = p.stdin.Close()
	return p.ctx.Err()
}
