package sqlite

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"causeway/analytics/store/storetest"
)

// The disk is full: writing fails with an error that names the file, reading goes on, and so does writing when there is room again.
func TestRootFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it mounts a small file system")
	}
	dir := t.TempDir()
	if err := unix.Mount("causeway", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	b := openBench(t, dir, Options{})
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	second := func(at int64) error {
		batch := storetest.Samples(200, at)
		batch.Traffic = oneSecond(at, 1).Traffic
		return b.Write(context.Background(), batch)
	}
	at, err := noon.Unix(), error(nil)
	for ; err == nil; at++ {
		if err = second(at); at > noon.Unix()+1000 {
			t.Fatal("the disk does not get full")
		}
	}
	if !strings.Contains(err.Error(), "2026-11-30.db") || !strings.Contains(err.Error(), "full") {
		t.Errorf("the error is %v", err)
	}
	if err := second(at); err == nil {
		t.Error("it could be written again without room")
	}
	b.now = time.Unix(at, 0)
	whole := at - 1 - noon.Unix()
	if got := b.bySecond(); int64(len(got)) != whole {
		t.Errorf("%d seconds are there, %d were written", len(got), whole)
	}
	if err := os.Remove(ballast); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if err := second(at); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if got := b.bySecond(); int64(len(got)) != whole+1 {
		t.Errorf("%d seconds are there after one more, %d were written", len(got), whole+1)
	}
}
