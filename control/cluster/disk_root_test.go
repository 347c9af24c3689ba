package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// diskSize is what the disk of a hub's store has, with room for what a store takes when it begins.
const diskSize = "96m"

// smallDisk puts a disk of its own under a directory.
func smallDisk(t *testing.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it mounts a small file system")
	}
	if err := errors.Join(os.MkdirAll(dir, 0o700), unix.Mount("causeway", dir, "tmpfs", 0, "size="+diskSize)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// fill leaves no byte of a disk, until what it returns is called.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	name := filepath.Join(dir, "fill")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// The disk of the store is full: what is up stays, nothing is negotiated, and the hub says why. When there is room again all goes on by
// itself, with what there was.
func TestRootFullDisk(t *testing.T) {
	b := newBed(t, "hub", "a")
	smallDisk(t, b.dir)
	hub, a := b.start("hub").joined(), b.start("a").joined()
	before := a.install()
	number, generation := a.writer.ID, a.writer.Generation
	free := fill(t, b.dir)
	var during uint32
	a.eventually("refusing", func() bool {
		spi, err := a.Shared().ReserveSPI()
		if err == nil {
			during = spi
			err = a.Shared().Install(a.child(spi))
		}
		return err != nil
	})
	hub.eventually("saying why", func() bool {
		return strings.Contains(hub.Status().Trouble, "0 MiB free: with 16 MiB or more it goes on by itself")
	})
	if a.plane.child(before.SPIIn) == nil || a.plane.child(during) != nil {
		t.Error("what was up is gone, or what was refused is there")
	}
	free()
	lives(t, "there is room again", a.joined(), hub.joined())
	for _, n := range []*node{a, hub} {
		n.eventually("of one digest with the other", func() bool { return digest(a) == digest(hub) })
		if n.plane.child(before.SPIIn) == nil {
			t.Errorf("%s has lost what was up", n.name)
		}
	}
	if a.writer.ID != number || a.writer.Generation != generation {
		t.Errorf("number %v of store %x, it was %v of %x", a.writer.ID, a.writer.Generation, number, generation)
	}
}

// One of three hubs has a full disk: the other two are the store, and it is a part of it again when there is room.
func TestRootFullDiskOfOne(t *testing.T) {
	b := newHubs(t, "y")
	smallDisk(t, b.dirOf("hub2"))
	hubs := []*node{b.start("hub1"), b.start("hub2"), b.start("hub3")}
	y := b.start("y")
	for _, n := range append(hubs, y) {
		n.joined().sees(3)
	}
	free := fill(t, b.dirOf("hub2"))
	y.eventually("noticing that a replica is not whole", func() bool {
		if spi, err := y.Shared().ReserveSPI(); err == nil {
			_ = y.Shared().Install(y.child(spi)) // something to write
		}
		list := y.Status().Replicas
		return len(list) == 3 && whole(list) < 3
	})
	lives(t, "one disk is full", y, hubs[0], hubs[2])
	free()
	y.eventually("seeing three whole replicas", func() bool { return whole(y.Status().Replicas) == 3 })
	lives(t, "there is room again", append(hubs, y)...)
}
