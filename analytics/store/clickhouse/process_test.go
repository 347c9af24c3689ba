package clickhouse

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// A process is what the kernel says of one.
type process struct {
	t   *testing.T
	pid int
}

func newProcess(t *testing.T, pid int) *process {
	t.Helper()
	p := &process{t, pid}
	p.forget()
	return p
}

// forget has the kernel forget how large the process was. proc(5)
func (p *process) forget() {
	p.t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.pid), []byte("5"), 0); err != nil {
		p.t.Fatal(err)
	}
}

// megabytes is how large the process was at most, as its resident set, since newProcess or forget.
func (p *process) megabytes() (n int) {
	p.t.Helper()
	_, rest, _ := strings.Cut(p.read("status"), "VmHWM:")
	if _, err := fmt.Sscan(rest, &n); err != nil {
		p.t.Fatal(err)
	}
	return n >> 10
}

// busy is the processor time that it has had, in steps of 10 ms. Other than the time on the wall it hardly depends on what else runs.
func (p *process) busy() time.Duration {
	p.t.Helper()
	_, rest, _ := strings.Cut(p.read("stat"), ") ")
	fields := strings.Fields(rest)
	var user, system time.Duration
	if len(fields) < 13 {
		p.t.Fatal(rest)
	}
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		p.t.Fatal(err)
	}
	return (user + system) * 10 * time.Millisecond
}

func (p *process) read(name string) string {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.pid, name))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(text)
}
