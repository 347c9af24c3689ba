package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: network namespaces, AF_XDP sockets and XDP programs")
	}
}

// TestRootVeth lets each forwarder carry traffic once; the sink counts only frames of the right protocol.
func TestRootVeth(t *testing.T) {
	needRoot(t)
	args, want := []string{"veth"}, len(comparisons())
	if testing.Short() {
		args, want = append(args, "-only", "/bare"), len(vethCases)
	} else if _, err := exec.LookPath(testpmdName); err != nil {
		want-- // skipped, with a message
	}
	all := results(t, args...)
	if len(all) != want {
		t.Fatalf("%d results, want %d: %+v", len(all), want, all)
	}
	for _, r := range all {
		if r.Against == "" || r.AgainstNS <= 0 || r.Ratio <= 0 || r.GoalNS <= 0 || r.Note == "" {
			t.Errorf("%+v", r)
		}
	}
}

// TestRootVethInterrupted presses Ctrl-C while frames flow: no process and no file may stay.
func TestRootVethInterrupted(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	cmd := exec.Command("/proc/self/exe", "veth")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var children []string
	for start := time.Now(); len(children) < 2; children = childrenOf(t, cmd.Process.Pid) {
		if time.Since(start) > time.Minute {
			_ = cmd.Process.Kill()
			t.Fatalf("no forwarder and generator after a minute: %v, %v", cmd.Wait(), stderr.String())
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("%v, %q", err, stderr.String())
	}
	for _, pid := range children {
		if _, err := os.Stat("/proc/" + pid); err == nil {
			t.Errorf("child %s is still there", pid)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("files are still there: %v %v", left, err)
	}
}

// childrenOf lists the children of a process that are no compilers.
func childrenOf(t *testing.T, pid int) (pids []string) {
	t.Helper()
	stats, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range stats {
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		// The name, in parentheses, may hold anything; state and parent follow it.
		var state string
		var parent int
		name, rest, _ := strings.Cut(string(b), ") ")
		if _, err := fmt.Sscan(rest, &state, &parent); err == nil && parent == pid && state != "Z" && !strings.HasSuffix(name, "(go") {
			pids = append(pids, e.Name())
		}
	}
	return pids
}
