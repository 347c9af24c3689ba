package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestStateDirOfOthers: a directory that somebody else could change is not taken.
func TestStateDirOfOthers(t *testing.T) {
	others, owner := "/", "belongs to user 0"
	if os.Geteuid() == 0 {
		others, owner = t.TempDir(), "belongs to user 12"
		if err := os.Chown(others, 12, -1); err != nil {
			t.Fatal(err)
		}
	}
	group, all := t.TempDir(), t.TempDir()
	if err := errors.Join(os.Chmod(group, 0o770), os.Chmod(all, 0o702)); err != nil {
		t.Fatal(err)
	}
	for dir, what := range map[string]string{others: owner, group: "mode 0770", all: "mode 0702"} {
		d := &stateDir{path: dir}
		if err := d.take(); !errors.Is(err, errStateOpen) || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), d.path) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestStateDirReplaced: a directory that was put in the place of ours is another daemon's.
func TestStateDirReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	first, second := &stateDir{path: path}, &stateDir{path: path}
	defer first.close()
	defer second.close()
	if err := errors.Join(first.take(), first.write("a", []byte("1"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "lock"} { // whatever is removed in it
		if err := os.RemoveAll(filepath.Join(path, name)); err != nil {
			t.Fatal(err)
		}
		if err := second.take(); !errors.Is(err, ErrStateInUse) {
			t.Fatalf("without %s: %v", name, err)
		}
	}
	if err := errors.Join(os.RemoveAll(path), second.take(), second.write("a", []byte("2"))); err != nil {
		t.Fatal(err)
	}
	if err := first.write("a", []byte("1")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("written to a directory that is gone: %v", err)
	}
	if b, err := second.read("a"); err != nil || string(b) != "2" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestStateDirFiles: nothing is written through a link or read from a pipe.
func TestStateDirFiles(t *testing.T) {
	d := &stateDir{path: t.TempDir()}
	defer d.close()
	victim := filepath.Join(t.TempDir(), "victim")
	err := errors.Join(d.take(), os.WriteFile(victim, []byte("precious"), 0o600),
		os.Symlink(victim, d.file("a.new")), os.Symlink(victim, d.file("b")), unix.Mkfifo(d.file("c"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.write("a", []byte("ours")); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "precious" {
		t.Errorf("%q, %v", b, err)
	}
	for _, name := range []string{"b", "c"} {
		if b, err := d.read(name); err == nil {
			t.Errorf("%s: %q", name, b)
		}
	}
}
