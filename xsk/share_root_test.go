package xsk

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRootOneRegistration opens six sockets under a limit for locked memory that
// one registration of the UMEM fits under and two do not. A second UMEM must
// then fail, and say what to do.
func TestRootOneRegistration(t *testing.T) {
	l := newLab(t, 4, 2)
	const frames = 2048 // 4 MiB, under the usual limit of 8 MiB
	limitLockedMemory(t, 3*frames*FrameSize/2)
	l.node.do(func() { dropLockedMemoryRight(t) })
	u := newTestUMEM(t, UMEMConfig{Parts: 1, FramesPerPart: frames})
	sockets := append(l.open(t, u, "a1", 3, SocketConfig{RingSize: 64}), l.open(t, u, "b1", 2, SocketConfig{RingSize: 64})...)

	other := newTestUMEM(t, UMEMConfig{Parts: 1, FramesPerPart: frames})
	cfg := SocketConfig{Interface: "a1", Queue: 3, RingSize: 64}
	var err error
	l.node.do(func() { _, err = OpenSocket(other, cfg) })
	if !errors.Is(err, unix.ENOBUFS) || !strings.Contains(err.Error(), "CAP_IPC_LOCK") {
		t.Errorf("a second umem: %v", err)
	}

	// The registration outlives the socket that made it.
	if err := sockets[0].Close(); err != nil {
		t.Error(err)
	}
	last := l.open(t, u, "a1", 1, SocketConfig{RingSize: 64})
	if err := u.Close(); err == nil || !strings.Contains(err.Error(), "5 sockets are still open") {
		t.Errorf("closing the umem under its sockets: %v", err)
	}
	for _, s := range append(sockets, last...) {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// limitLockedMemory sets the process's soft limit for the length of the test.
func limitLockedMemory(t *testing.T, bytes uint64) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: bytes, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &old) })
}

// dropLockedMemoryRight takes CAP_IPC_LOCK from the calling thread, which the
// test throws away at its end.
func dropLockedMemoryRight(t *testing.T) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&hdr, &data[0])
	if err == nil {
		data[0].Effective &^= 1 << unix.CAP_IPC_LOCK
		err = unix.Capset(&hdr, &data[0])
	}
	if err != nil {
		t.Error(err)
	}
}
