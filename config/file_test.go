package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFilesThatAreNone: what a reload must not wait for, or fill the memory with.
func TestFilesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	pipe, big := filepath.Join(dir, "pipe"), filepath.Join(dir, "big")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(big, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, maxFile+1); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		pipe:        pipe + ": cannot be read: it is not a regular file",
		"/dev/zero": "/dev/zero: cannot be read: it is not a regular file",
		dir:         dir + ": cannot be read: is a directory",
		big:         big + ": cannot be read: it has 64 MiB, more than the 64 that a configuration may have",
	} {
		done := make(chan error, 1)
		go func() { _, err := Load(path); done <- err }()
		select {
		case err := <-done:
			if err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: still waiting", path)
		}
	}
}

// TestDepth: nesting that would take the YAML package gigabytes is refused first, and what real files have is not.
func TestDepth(t *testing.T) {
	for name, text := range map[string]string{
		"lists in a line": strings.Repeat("- ", 50000) + "a",
		"brackets":        strings.Repeat("[", 2000000),
		"mappings":        strings.Repeat("{a: ", 300000),
		"over lines":      strings.Repeat("[\n", 1000),
		"indentation":     strings.Repeat(" ", 1000) + "a: b",
	} {
		begin := time.Now()
		_, err := Parse("c.yaml", []byte("endpoints: [192.0.2.1]\n"+text))
		if err == nil || !strings.Contains(err.Error(), "nested too deeply") {
			t.Errorf("%s: %.200v", name, err)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
	}
	if line, deep := nestedTooDeep([]byte(strings.Repeat("a: [{b: [c]}]\n", 1000))); deep {
		t.Errorf("ordinary lines are refused at line %d", line)
	}
}
