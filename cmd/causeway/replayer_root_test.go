package main_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/google/gopacket/pcapgo"
	"golang.org/x/sys/unix"

	"causeway/scripts/hosts"
)

// A replayer sends the frames of a recording on an interface, round and round, at a rate that may change meanwhile: scapy makes them, but
// sends a few thousand a second. They go to the link as they are, and queue nowhere.
type replayer struct {
	pcap     string
	fd       int
	messages []mmsghdr
	vectors  []unix.Iovec
	frames   [][]byte // that vectors point to
	next     int
	sent     atomic.Int64
	refused  atomic.Int64 // the link had no room
}

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	sent uint32
}

// replays opens a recording to be sent on a host's interface.
func replays(t *testing.T, h *hosts.Host, ifname, pcap string) *replayer {
	t.Helper()
	r := &replayer{pcap: pcap, frames: framesOf(t, pcap)}
	h.Do(func() {
		link, err := net.InterfaceByName(ifname)
		if err == nil {
			r.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // protocol 0: it receives nothing
		}
		if err == nil {
			err = errors.Join(unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1),
				unix.Bind(r.fd, &unix.SockaddrLinklayer{Ifindex: link.Index}))
		}
		if err != nil {
			t.Fatalf("%s: sending on %s: %v", h.Name, ifname, err)
		}
	})
	t.Cleanup(func() { unix.Close(r.fd) })
	r.vectors, r.messages = make([]unix.Iovec, len(r.frames)), make([]mmsghdr, len(r.frames))
	for i, frame := range r.frames {
		r.vectors[i].Base = &frame[0]
		r.vectors[i].SetLen(len(frame))
		r.messages[i].Iov = &r.vectors[i]
		r.messages[i].SetIovlen(1)
	}
	return r
}

// framesOf reads a recording.
func framesOf(t *testing.T, pcap string) (frames [][]byte) {
	t.Helper()
	f, err := os.Open(pcap)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in, err := pcapgo.NewReader(f)
	for err == nil {
		var frame []byte
		if frame, _, err = in.ReadPacketData(); err == nil {
			frames = append(frames, frame)
		}
	}
	if !errors.Is(err, io.EOF) || len(frames) == 0 {
		t.Fatalf("%s: %d frames, then %v", pcap, len(frames), err)
	}
	return frames
}

// burst is how many frames are sent by one call at the most: what the ring of a veth bears.
const burst = 64

// some sends up to n frames from where the recording was left, and returns how many the link has taken or refused.
func (r *replayer) some(n int) (int, error) {
	n = min(n, burst, len(r.messages)-r.next)
	done, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(r.fd), uintptr(unsafe.Pointer(&r.messages[r.next])), uintptr(n), 0, 0, 0)
	runtime.KeepAlive(r)
	switch {
	case errno == unix.ENOBUFS || errno == unix.EAGAIN:
		r.refused.Add(1)
		done = 1
	case errno == unix.EINTR:
		done = 0
	case errno != 0:
		return 0, fmt.Errorf("sendmmsg: %w", errno)
	default:
		r.sent.Add(int64(done))
	}
	r.next = (r.next + int(done)) % len(r.messages)
	return int(done), nil
}

// run sends until the end, at so many packets a second, which may depend on how long it has been sending. What the machine had no
// time for is not made up for, but for a twentieth of a second.
func (r *replayer) run(end <-chan struct{}, rate func(since time.Duration) float64) error {
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	began := time.Now()
	last, due := began, 0.0
	for {
		select {
		case <-end:
			return nil
		case <-tick.C:
		}
		now := time.Now()
		pps := rate(now.Sub(began))
		due, last = min(due+now.Sub(last).Seconds()*pps, max(pps/20, 1)), now
		for due >= 1 {
			n, err := r.some(int(due))
			if err != nil {
				return err
			}
			due -= float64(n)
		}
	}
}

// once sends all frames of the recording one time, at so many packets a second.
func (r *replayer) once(pps float64) error {
	began := time.Now()
	for sent := 0; sent < len(r.messages); {
		due := int(time.Since(began).Seconds()*pps) + 1 - sent
		if due <= 0 {
			time.Sleep(500 * time.Microsecond)
			continue
		}
		n, err := r.some(min(due, len(r.messages)-sent))
		if err != nil {
			return err
		}
		sent += n
	}
	if n := r.refused.Load(); n > 0 {
		return fmt.Errorf("the link has refused %d of %d frames", n, len(r.messages))
	}
	return nil
}

// steadily is a rate that does not change.
func steadily(pps float64) func(time.Duration) float64 {
	return func(time.Duration) float64 { return pps }
}

// background sends until the returned function is called, which waits until nothing more is sent.
func (r *replayer) background(t *testing.T, rate func(time.Duration) float64) (stop func()) {
	end := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() {
		if err := r.run(end, rate); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() {
		close(end)
		sending.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// scapyWrites runs a script in which record(name, frames) writes a recording; the names are files of the returned directory.
// many(frame, n, ...) makes n of one, each from another address, port and so on: scapy itself makes two thousand packets a second.
func (b *bed) scapyWrites(t *testing.T, script string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	file := filepath.Join(dir, "script.py")
	text := "import random, struct, sys\nfrom scapy.all import *\ndirectory = sys.argv[1]\n" + scapyHelpers + script
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.rt.MustRun("/usr/bin/python3", file, dir)
	return dir
}

// Checksums follow by RFC 1624: those of IPv4 and, which covers its addresses too, of TCP or UDP.
const scapyHelpers = `
random.seed(7)

def record(name, frames):
    wrpcap(directory + "/" + name, frames, linktype=1)

def patch(f, at, new, sums):
    words = "!%dH" % (len(new) // 2)
    delta = sum(struct.unpack(words, new)) - sum(struct.unpack(words, f[at:at+len(new)]))
    f[at:at+len(new)] = new
    for s in sums:
        v = (0xffff - struct.unpack("!H", f[s:s+2])[0] + delta) % 0xffff
        f[s:s+2] = struct.pack("!H", 0xffff - v)

def vary(frame, at=14, **fields):
    "the frame, whose IPv4 header begins at that octet, with other src, dst (4 octets), sport or dport (numbers)"
    f = bytearray(frame)
    l4, sums = at + 20, {6: [at + 36], 17: [at + 26]}.get(f[at+9], [])
    if f[at+6] & 0x1f or f[at+7]:
        sums = []
    for name, value in fields.items():
        if name == "src" or name == "dst":
            patch(f, at + (12 if name == "src" else 16), value, [at + 10] + sums)
        elif sums:
            patch(f, l4 + (0 if name == "sport" else 2), struct.pack("!H", value), sums)
    return bytes(f)

def anyone():
    return bytes((5, random.randrange(256), random.randrange(256), random.randrange(1, 255)))

def anyport():
    return random.randrange(1024, 65536)

def many(frame, n, fields):
    "so many of a frame, with fields drawn each time"
    frame = bytes(frame)
    draw = {"src": anyone, "dst": lambda: bytes((198, 18, 31, random.randrange(256))), "sport": anyport, "dport": anyport}
    return [vary(frame, **{name: draw[name]() for name in fields.split()}) for _ in range(n)]
`
