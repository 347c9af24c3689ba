package pcapport

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/pcapgo"
)

// What is written is read by gopacket, and the Ethernet part of it by our own reader; tshark reads it in cmd/causeway.
func TestNGWriter(t *testing.T) {
	var file bytes.Buffer
	w, err := NewNGWriter(&file, "a test")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_700_000_000, 123_456_789).UTC()
	eth, err1 := w.Interface("eth1", "frames", LinkEthernet)
	frame := []byte("a frame of 24 bytes, yes.")
	err2 := w.Packet(at, eth, frame[:21], len(frame), 17, "the first")
	raw, err3 := w.Interface("decapsulated", "", LinkRaw)
	err4 := w.Packet(at, raw, []byte{0x45}, 1, 0, strings.Repeat("x", 70_000))
	if err := errors.Join(err1, err2, err3, err4); err != nil || eth != 0 || raw != 1 {
		t.Fatal(err, eth, raw)
	}
	if w.Packet(at, 2, nil, 0, 0, "") == nil {
		t.Error("an interface that is none")
	}
	r, err := pcapgo.NewNgReader(bytes.NewReader(file.Bytes()), pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{string(frame[:21]), "\x45"} {
		b, info, err := r.ReadPacketData()
		if err != nil || string(b) != want || !info.Timestamp.Equal(at) || info.InterfaceIndex != i {
			t.Errorf("packet %d: %q, %+v, %v", i, b, info, err)
		}
	}
	if _, _, err := r.ReadPacketData(); err != io.EOF {
		t.Error(err)
	}
	if i, err := r.Interface(1); err != nil || i.Name != "decapsulated" || int(i.LinkType) != LinkRaw {
		t.Errorf("%+v, %v", i, err)
	}
	own, err := NewReader(bytes.NewReader(file.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	f, err := own.Next()
	if err != nil || !f.Time.Equal(at) || f.Length != len(frame) || string(f.Data) != string(frame[:21]) {
		t.Errorf("%+v, %v", f, err)
	}
	if !bytes.Contains(file.Bytes(), []byte("the first")) {
		t.Error("there is no comment")
	}
}

// fullFile takes so many bytes.
type fullFile int

func (f *fullFile) Write(b []byte) (int, error) {
	if *f -= fullFile(len(b)); *f < 0 {
		return 0, io.ErrShortWrite
	}
	return len(b), nil
}

func TestNGWriterFull(t *testing.T) {
	room := fullFile(100)
	w, err := NewNGWriter(&room, "")
	if err != nil {
		t.Fatal(err)
	}
	i, err := w.Interface("e", "", LinkEthernet)
	if err != nil {
		t.Fatal(err)
	}
	if w.Packet(time.Now(), i, make([]byte, 100), 100, 0, "") == nil || w.Packet(time.Now(), i, nil, 0, 0, "") == nil {
		t.Error("a full file takes packets")
	}
}
