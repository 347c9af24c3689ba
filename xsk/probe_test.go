package xsk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFeatureRemembersOnlyAnswers(t *testing.T) {
	asked := 0
	answer := error(unix.EPERM)
	f := &feature{name: "x", since: "9.9", probe: func(string) error { asked++; return answer }}
	if err := f.check(""); !errors.Is(err, unix.EPERM) || errors.Is(err, ErrNotSupported) {
		t.Errorf("lack of rights says nothing about the kernel: %v", err)
	}
	answer = unix.EINVAL
	for range 2 {
		err := f.check("")
		var typed *NotSupportedError
		if !errors.Is(err, ErrNotSupported) || !errors.Is(err, unix.EINVAL) || !errors.As(err, &typed) || typed.Since != "9.9" {
			t.Errorf("got %v", err)
		}
		if want := "x: not supported by this kernel; linux 9.9 or later has it: invalid argument"; err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times, want 2: once without rights, once for good", asked)
	}
	f = &feature{name: "x", since: "9.9", perInterface: true, probe: func(ifname string) error { return fmt.Errorf("no") }}
	if err := f.check("eth0"); !strings.Contains(err.Error(), "the driver of eth0: no") {
		t.Errorf("got %v", err)
	}
}

func TestProbeWithoutInterface(t *testing.T) {
	table, err := Probe("")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range table {
		if c.Name == "" || c.Since == "" || c.Purpose == "" || c.Supported != (c.Err == nil) {
			t.Errorf("%+v", c)
		}
		if c.Name == "zero-copy" {
			t.Error("zero-copy depends on a driver, and there is none")
		}
	}
}

func TestCopyMayHelp(t *testing.T) {
	for err, want := range map[error]bool{
		unix.EOPNOTSUPP: true, unix.EINVAL: true, unix.ENETDOWN: true, &NotSupportedError{Cause: unix.EINVAL}: true,
		unix.EPERM: false, unix.EBUSY: false, unix.ENODEV: false, unix.ENOBUFS: false,
	} {
		if got := copyMayHelp(fmt.Errorf("bind: %w", err)); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}

func TestModeNames(t *testing.T) {
	for m := ModeAuto; m <= ModeGeneric; m++ {
		if got, err := ParseMode(m.String()); got != m || err != nil {
			t.Errorf("%v: %v, %v", m, got, err)
		}
	}
	if _, err := ParseMode("fast"); err == nil || !strings.Contains(err.Error(), `mode "fast": allowed are auto, zero-copy, copy and generic`) {
		t.Errorf("got %v", err)
	}
}

// attr appends one netlink attribute.
func attr(b []byte, kind uint16, value ...byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func TestAttribute(t *testing.T) {
	b := attr(attr(attr(nil, 1, 'a'), 2|unix.NLA_F_NESTED, 'b', 'c'), 3, 'd')
	for kind, want := range map[uint16]string{1: "a", 2: "bc", 3: "d"} {
		if got := attribute(b, kind); string(got) != want {
			t.Errorf("attribute %d: %q, want %q", kind, got, want)
		}
	}
	if attribute(b, 4) != nil {
		t.Error("found an attribute that is not there")
	}
	// Cut anywhere, and with absurd lengths: no panic, nothing invented.
	for i := range b {
		attribute(b[:i], 4)
		for _, l := range []byte{0, 3, 255} {
			bad := slices.Clone(b)
			bad[i] = l
			attribute(bad, 4)
		}
	}
}

func TestGenlAnswer(t *testing.T) {
	refused := make([]byte, 36)
	binary.NativeEndian.PutUint16(refused[4:], unix.NLMSG_ERROR)
	code := int32(unix.ENOENT)
	binary.NativeEndian.PutUint32(refused[16:], uint32(-code))
	if _, err := genlAnswer(refused); !errors.Is(err, unix.ENOENT) {
		t.Errorf("got %v", err)
	}
	good := binary.NativeEndian.AppendUint32(nil, 23)
	good = append(good, make([]byte, 16)...)
	good = append(good, 'x', 'y', 'z', 'p')
	if got, err := genlAnswer(good); err != nil || string(got) != "xyz" {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range [][]byte{nil, good[:19], good[:22]} {
		if _, err := genlAnswer(bad); err == nil {
			t.Errorf("%d bytes were accepted", len(bad))
		}
	}
}

// TestQueueList covers what a test with real queues cannot see: the sentences
// of impossible lists are in TestRootPortRefuses.
func TestQueueList(t *testing.T) {
	ifi := &Interface{Name: "there is no such interface", RxQueues: 3, TxQueues: 3}
	for _, c := range []struct {
		list []int
		want []int
	}{{nil, []int{0, 1, 2}}, {[]int{2, 0, 1}, []int{0, 1, 2}}, {[]int{0, 1}, nil}, {[]int{3}, nil}, {[]int{0, 0, 1, 2}, nil}} {
		cfg := PortConfig{Name: ifi.Name, Queues: c.list}
		got, err := cfg.queues(ifi)
		if (err == nil) != (c.want != nil) || err == nil && !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, %v", c.list, got, err)
		}
	}
}
