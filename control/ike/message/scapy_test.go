package message

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// TestScapy compares each sample with what scapy makes of the same message, both ways and byte for byte.
func TestScapy(t *testing.T) {
	record := recorded[scapyRecord](t, "scapy.json")
	eachSample(t, func(t *testing.T, name string, s sample) {
		want := unhex(record.Messages[name])
		if got := s.message(); !bytes.Equal(got, want) {
			t.Errorf("we write  %x\n%s %x", got, record.By, want)
		}
		h, c := contentsOf(t, want)
		if h.Length != len(want) {
			t.Errorf("length %d, want %d", h.Length, len(want))
		}
		h.First, h.Length = 0, 0
		if h != s.header {
			t.Errorf("header %+v, want %+v", h, s.header)
		}
		if !reflect.DeepEqual(*c, s.Contents) {
			t.Errorf("contents\n%+v, want\n%+v", *c, s.Contents)
		}
	})
}

// TestScapySealed compares the frames of encrypted payloads.
func TestScapySealed(t *testing.T) {
	record := recorded[scapyRecord](t, "scapy.json")
	for _, c := range []struct {
		name   string
		header Header
		sealed Sealed
		size   int
	}{
		{"SK", request(IKEAuth, 1), Sealed{First: PayloadIDi, At: 32}, 64},
		{"SK with nothing", response(Informational, 2), Sealed{At: 32}, 33},
		{"SKF, the first", request(IKEAuth, 1), Sealed{First: PayloadIDi, Fragment: 1, Fragments: 2, At: 36}, 100},
		{"SKF, the second", request(IKEAuth, 1), Sealed{Fragment: 2, Fragments: 2, At: 36}, 60},
	} {
		want := unhex(record.Messages[c.name])
		if got := append(AppendSealedHeader(nil, c.header, c.sealed, c.size), load(c.size)...); !bytes.Equal(got, want) {
			t.Errorf("%s: we write  %x\n%s %x", c.name, got, record.By, want)
		}
		h, err := ParseHeader(want)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if s, err := ParseSealed(h, want); err != nil || s != c.sealed {
			t.Errorf("%s: %+v, %v, want %+v", c.name, s, err, c.sealed)
		}
		if _, err := Parse(h.First, want[HeaderLen:]); err == nil {
			t.Errorf("%s: an encrypted payload is read as if it were not", c.name)
		}
	}
}

// TestScapyUnknownPayload: RFC 7296, section 2.5.
func TestScapyUnknownPayload(t *testing.T) {
	record := recorded[scapyRecord](t, "scapy.json")
	b := unhex(record.Messages["an unknown payload"])
	if _, c := contentsOf(t, b); c.Notify(NotifyInitialContact) == nil || len(c.Notifies) != 1 {
		t.Errorf("what is behind an unknown payload is lost: %+v", c)
	}
	b = unhex(record.Messages["an unknown critical payload"])
	c, err := Parse(PayloadType(b[16]), b[HeaderLen:])
	var critical *CriticalError
	if !errors.As(err, &critical) || critical.Type != 200 || c != nil {
		t.Errorf("an unknown critical payload: %+v, %v", c, err)
	}
}

// TestScapyNames compares our names with those of scapy's tables.
func TestScapyNames(t *testing.T) {
	names := recorded[scapyRecord](t, "scapy.json").Names
	compared := 0
	compare := func(table string, ours func(int) string) {
		for number, name := range names[table] {
			n, err := strconv.Atoi(number)
			if err != nil {
				t.Fatal(err)
			}
			if got := ours(n); got == name {
				compared++
			} else if !strings.HasSuffix(got, " "+number) { // not the one for numbers without a name
				t.Errorf("%s %d is %q here, %q in scapy", table, n, got, name)
			}
		}
	}
	compare("notify", func(n int) string { return NotifyType(n).String() })
	compare("authentication", func(n int) string { return AuthMethod(n).String() })
	compare("exchange", func(n int) string { return ExchangeType(n).String() })
	if compared < 35 {
		t.Errorf("%d names were compared", compared)
	}
}

// TestScapyAgain: the recording is what craft.py makes today.
func TestScapyAgain(t *testing.T) {
	const python = "/usr/bin/python3" // where Debian's python3-scapy is installed
	if _, err := os.Stat(python); err != nil {
		t.Fatalf("needs scapy: %v: apt-get install -y python3-scapy", err)
	}
	cmd := exec.Command(python, "testdata/craft.py")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	got, err := cmd.Output()
	if err != nil {
		t.Fatalf("testdata/craft.py: %v\n%s\nif scapy is missing: apt-get install -y python3-scapy", err, stderr.Bytes())
	}
	want, err := os.ReadFile("testdata/scapy.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("testdata/craft.py does not print testdata/scapy.json: run testdata/craft.py >testdata/scapy.json and see what differs")
	}
}
