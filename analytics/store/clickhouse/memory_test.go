package clickhouse

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// A memory is how much a process had at most, as its resident set, since newMemory or forget.
type memory struct {
	t   *testing.T
	pid int
}

func newMemory(t *testing.T, pid int) *memory {
	t.Helper()
	m := &memory{t, pid}
	m.forget()
	return m
}

func (m *memory) forget() {
	m.t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", m.pid), []byte("5"), 0); err != nil { // proc(5)
		m.t.Fatal(err)
	}
}

func (m *memory) megabytes() int {
	m.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.pid))
	if err != nil {
		m.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	var kilobytes int
	if _, err := fmt.Sscan(rest, &kilobytes); err != nil {
		m.t.Fatal(err)
	}
	return kilobytes >> 10
}
