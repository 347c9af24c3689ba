package hosts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// runLimit bounds a Run: a command that hangs must not hang the test until its own end.
const runLimit = 2 * time.Minute

// Host is one host of a Net.
type Host struct {
	net   *Net
	Name  string
	Netns string // the namespace's name for ip netns
}

// Run runs a command in the host and returns what it printed, standard output and errors together.
// The error is nil if the command's status was 0.
func (h *Host) Run(command ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), runLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", h.Netns}, command...)...)
	cmd.WaitDelay = time.Second // for children of the command that keep its output open
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = fmt.Errorf("not done after %v", runLimit)
	}
	return string(out), err
}

// MustRun is Run for a command that has to succeed.
func (h *Host) MustRun(command ...string) string {
	h.net.t.Helper()
	out, err := h.Run(command...)
	if err != nil {
		h.net.t.Fatalf("%s: %s: %v\n%s", h.Name, strings.Join(command, " "), err, out)
	}
	return out
}

func (h *Host) ip(args ...string) string {
	h.net.t.Helper()
	return h.MustRun(append([]string{"ip"}, args...)...)
}

// Addr gives an interface addresses, each with its prefix length: 192.0.2.1/24, 2001:db8::1/64.
func (h *Host) Addr(ifname string, prefixes ...string) {
	h.net.t.Helper()
	for _, p := range prefixes {
		args := []string{"addr", "add", p, "dev", ifname}
		if strings.Contains(p, ":") {
			args = append(args, "nodad")
		}
		h.ip(args...)
	}
}

// Route adds a route in the words of ip route: Route("default", "via", "192.0.2.1").
func (h *Host) Route(words ...string) {
	h.net.t.Helper()
	family := "-4"
	if strings.Contains(strings.Join(words, " "), ":") {
		family = "-6"
	}
	h.ip(append([]string{family, "route", "add"}, words...)...)
}

// MAC returns an interface's Ethernet address as aa:bb:cc:dd:ee:ff.
func (h *Host) MAC(ifname string) string {
	h.net.t.Helper()
	return strings.TrimSpace(h.MustRun("cat", "/sys/class/net/"+ifname+"/address"))
}

// Sysctl sets a kernel parameter of the host. A dot in an interface's name is written as a slash
// and the other dots too then, as in sysctl(8).
func (h *Host) Sysctl(key, value string) {
	h.net.t.Helper()
	if !strings.Contains(key, "/") {
		key = strings.ReplaceAll(key, ".", "/")
	}
	h.Do(func() {
		if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0); err != nil {
			h.net.t.Fatalf("%s: sysctl %s=%s: %v", h.Name, key, value, err)
		}
	})
}

// Do calls f on a thread that is in the host's namespace: sockets that f opens belong to the host,
// and stay in it afterwards. Goroutines that f starts are elsewhere.
func (h *Host) Do(f func()) {
	h.net.t.Helper()
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		h.net.t.Fatal(err)
	}
	defer home.Close()
	there, err := os.Open("/run/netns/" + h.Netns)
	if err != nil {
		h.net.t.Fatal(err)
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		h.net.t.Fatalf("entering %s: %v", h.Netns, err)
	}
	// Deferred, so that the thread also comes home when f ends the test.
	defer func() {
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			h.net.t.Errorf("leaving %s: %v", h.Netns, err)
			return // still locked: the runtime ends the thread with its goroutine
		}
		runtime.UnlockOSThread()
	}()
	f()
}

// Process is a command that runs in the background until it is stopped or the test ends.
type Process struct {
	t       testing.TB
	command string
	cmd     *exec.Cmd
	log     string
	done    chan struct{} // closed once err holds how it ended
	err     error
	stopped sync.Once
}

// Start runs a command in the background. What it prints goes to a file; if the test fails, the
// end of it is shown.
func (h *Host) Start(command ...string) *Process {
	t := h.net.t
	t.Helper()
	log, err := os.CreateTemp(h.net.dir, h.Name+"-"+filepath.Base(command[0])+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	// ip netns exec replaces itself by the command, so the process id is the command's.
	cmd := exec.Command("ip", append([]string{"netns", "exec", h.Netns}, command...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %s: %v", h.Name, strings.Join(command, " "), err)
	}
	p := &Process{t: t, command: strings.Join(command, " "), cmd: cmd, log: log.Name(), done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("%s: %s printed:\n%s", h.Name, p.command, tail(p.Log(), 60))
		}
	})
	return p
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log returns what the process has printed.
func (p *Process) Log() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// WaitLog waits until the process has printed the text. It ends the test when the process ends
// first, or after the limit.
func (p *Process) WaitLog(text string, limit time.Duration) {
	p.t.Helper()
	for end := time.Now().Add(limit); !strings.Contains(p.Log(), text); time.Sleep(5 * time.Millisecond) {
		select {
		case <-p.done:
			if strings.Contains(p.Log(), text) {
				return
			}
			p.t.Fatalf("%s ended (%v) before it printed %q; it printed:\n%s", p.command, p.err, text, tail(p.Log(), 60))
		default:
		}
		if time.Now().After(end) {
			p.t.Fatalf("%s did not print %q in %v; it printed:\n%s", p.command, text, limit, tail(p.Log(), 60))
		}
	}
}

// Signal sends a signal to the process.
func (p *Process) Signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatalf("signal %v to %s: %v", sig, p.command, err)
	}
}

// Wait waits until the process has ended; nil means with status 0. After the limit it ends the test.
func (p *Process) Wait(limit time.Duration) error {
	p.t.Helper()
	select {
	case <-p.done:
		return p.err
	case <-time.After(limit):
		p.t.Fatalf("%s has not ended after %v; it printed:\n%s", p.command, limit, tail(p.Log(), 60))
		return nil
	}
}

// Kill ends the process with SIGKILL and waits until it is gone.
func (p *Process) Kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// Stop asks the process to end (SIGTERM), makes it after five seconds, and returns how it ended.
// Stopping it again does nothing.
func (p *Process) Stop() error {
	p.stopped.Do(func() {
		p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(5 * time.Second):
			p.Kill()
		}
	})
	<-p.done
	return p.err
}

// tail returns the last n lines of a text.
func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(lines) > n {
		lines = append([]string{"..."}, lines[len(lines)-n:]...)
	}
	return strings.Join(lines, "\n")
}
