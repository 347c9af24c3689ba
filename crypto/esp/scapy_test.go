package esp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// job is what testdata/peer.py is asked.
type job struct {
	Op    string `json:"op"`
	Suite string `json:"suite"`
	Key   string `json:"key"`
	SPI   uint32 `json:"spi"`
	Seq   uint32 `json:"seq"`
	High  uint32 `json:"high"`
	ESN   bool   `json:"esn"`
	IV    string `json:"iv"`
	Data  string `json:"data"`
}

// scapy does the jobs at once.
func scapy(t *testing.T, jobs []job) []string {
	t.Helper()
	const python = "/usr/bin/python3" // where Debian's python3-scapy is installed
	if _, err := os.Stat(python); err != nil {
		t.Fatalf("needs scapy: %v: apt-get install -y python3-scapy", err)
	}
	in, err := json.Marshal(jobs)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "testdata/peer.py")
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("testdata/peer.py: %v\n%s\nif scapy is missing: apt-get install -y python3-scapy python3-cryptography", err, stderr.Bytes())
	}
	var answers []string
	if err := json.Unmarshal(out, &answers); err != nil || len(answers) != len(jobs) {
		t.Fatalf("testdata/peer.py: %d answers to %d questions, %v", len(answers), len(jobs), err)
	}
	return answers
}

// inner is an IPv4 packet of n bytes.
func inner(rng *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	p[0], p[1], p[6], p[7], p[8], p[9] = 0x45, 0, 0x40, 0, 64, 253
	binary.BigEndian.PutUint16(p[2:], uint16(n))
	binary.BigEndian.PutUint16(p[10:], 0)
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum>>16+sum))
	return p
}

// TestScapyOpensWhatWeSeal: every suite, with and without ESN, and every length of padding.
func TestScapyOpensWhatWeSeal(t *testing.T) {
	b := newBed(t)
	var jobs []job
	var want [][]byte
	for s := AES128GCM16; s < suiteEnd; s++ {
		for _, esn := range []bool{false, true} {
			first := uint64(7)
			if esn {
				first = 5<<32 | 0xfffffff0 // the lower half overflows meanwhile
			}
			key := b.key(s)
			sa := b.outbound(Params{SPI: 0x1234567, Suite: s, Key: key, ESN: esn}, first)
			for n := 40; n < 60; n++ {
				text := inner(b.rng, n)
				seq := sa.Next()
				jobs = append(jobs, job{Op: "open", Suite: s.String(), Key: hex.EncodeToString(key), SPI: 0x1234567, Seq: uint32(seq),
					High: uint32(seq >> 32), ESN: esn, Data: hex.EncodeToString(b.seal(sa, text, NextIPv4))})
				want = append(want, text)
			}
		}
	}
	for i, got := range scapy(t, jobs) {
		if got != hex.EncodeToString(want[i]) {
			t.Errorf("%s, esn %v, %d bytes: %s", jobs[i].Suite, jobs[i].ESN, len(want[i]), got)
		}
	}
}

// TestWeOpenWhatScapySeals: and refuse the same packets with a bit turned, and come again.
func TestWeOpenWhatScapySeals(t *testing.T) {
	b := newBed(t)
	var jobs []job
	var texts [][]byte
	for s := AES128GCM16; s < suiteEnd; s++ {
		for _, esn := range []bool{false, true} {
			key, high := b.key(s), uint32(0)
			if esn {
				high = 3
			}
			for n := 40; n < 60; n++ {
				text := inner(b.rng, n)
				iv := make([]byte, s.info().iv)
				for i := range iv {
					iv[i] = byte(b.rng.Uint32())
				}
				jobs = append(jobs, job{Op: "seal", Suite: s.String(), Key: hex.EncodeToString(key), SPI: 0x89abcdef, Seq: uint32(n), High: high,
					ESN: esn, IV: hex.EncodeToString(iv), Data: hex.EncodeToString(text)})
				texts = append(texts, text)
			}
		}
	}
	var sa *Inbound
	for i, answer := range scapy(t, jobs) {
		j := jobs[i]
		if i == 0 || j.Key != jobs[i-1].Key || j.ESN != jobs[i-1].ESN {
			key, _ := hex.DecodeString(j.Key)
			s, err := ParseSuite(j.Suite)
			if err != nil {
				t.Fatal(err)
			}
			sa = b.inbound(Params{SPI: j.SPI, Suite: s, Key: key, ESN: j.ESN}, 64)
			sa.window.top = uint64(j.High) << 32
		}
		packet, err := hex.DecodeString(answer)
		if err != nil || strings.HasPrefix(answer, "error") {
			t.Fatalf("%s: %s", j.Suite, answer)
		}
		forged := bytes.Clone(packet)
		forged[len(forged)-1-b.rng.IntN(len(forged)-headerLen)] ^= 1
		if _, _, v := b.open(sa, forged); v != Forged {
			t.Fatalf("%s, esn %v: a forged packet is %v", j.Suite, j.ESN, v)
		}
		again := bytes.Clone(packet)
		got, next, v := b.open(sa, packet)
		if v != OK || next != NextIPv4 || !bytes.Equal(got, texts[i]) {
			t.Fatalf("%s, esn %v, %d bytes: %v, next header %d, %x, want %x", j.Suite, j.ESN, len(texts[i]), v, next, got, texts[i])
		}
		if _, _, v := b.open(sa, again); v != Replayed {
			t.Fatalf("%s: the same packet again is %v", j.Suite, v)
		}
	}
}
