package aesgcm

import (
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/c2sp/wycheproof"
)

// octets are bytes that stand as hexadecimal digits in JSON.
type octets []byte

func (o *octets) UnmarshalText(text []byte) (err error) {
	*o, err = hex.AppendDecode(nil, text)
	return err
}

// alone seals or opens one packet by itself.
func alone(t *testing.T, v *Vault, secret, nonce, aad, text []byte, treat func(*Burst)) (*Burst, []byte) {
	t.Helper()
	k, err := v.Key(secret, [SaltSize]byte(nonce))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Wipe(&k)
	b := new(Burst)
	b.Set(0, &k, text, binary.LittleEndian.Uint64(nonce[SaltSize:]), aadOf(aad))
	treat(b)
	return b, text
}

func seal(b *Burst) { b.Seal() }
func open(b *Burst) { b.Open() }

// TestWycheproof goes through project Wycheproof's cases with nonces of 96 bits, keys of 128 and 256 bits and as much
// additional data as a burst takes.
func TestWycheproof(t *testing.T) {
	text, err := fs.ReadFile(wycheproof.TestVectors, "aes_gcm_test.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		TestGroups []struct {
			IVSize, KeySize, TagSize int
			Tests                    []struct {
				TCID                       int
				Comment, Result            string
				Key, IV, AAD, Msg, CT, Tag octets
			}
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	implementations(t, func(t *testing.T, v *Vault) {
		valid, invalid := 0, 0
		for _, g := range file.TestGroups {
			if g.IVSize != 96 || g.KeySize == 192 || g.TagSize != 128 {
				continue
			}
			for _, c := range g.Tests {
				if len(c.AAD) > MaxAAD {
					continue
				}
				sealed := bytes.Join([][]byte{c.CT, c.Tag}, nil)
				b, opened := alone(t, v, c.Key, c.IV, c.AAD, bytes.Clone(sealed), open)
				if c.Result == "invalid" {
					invalid++
					if !b.Failed(0) {
						t.Errorf("case %d (%s) was accepted", c.TCID, c.Comment)
					}
					continue
				}
				valid++
				if b.Failed(0) || !bytes.Equal(opened[:len(c.Msg)], c.Msg) {
					t.Errorf("case %d (%s): refused: %v, text %x", c.TCID, c.Comment, b.Failed(0), opened[:len(c.Msg)])
				}
				if _, got := alone(t, v, c.Key, c.IV, c.AAD, append(bytes.Clone(c.Msg), make([]byte, TagSize)...), seal); !bytes.Equal(got, sealed) {
					t.Errorf("case %d (%s): %x, want %x", c.TCID, c.Comment, got, sealed)
				}
			}
		}
		if valid < 50 || invalid < 50 {
			t.Errorf("only %d valid and %d invalid cases", valid, invalid)
		}
	})
}

// acvpModule has answers to NIST's Automated Cryptographic Validation Protocol, of the kind that Go's own FIPS tests use.
const acvpModule = "github.com/geomys/acvp-testdata@v0.0.0-20251201200548-d893de8b8b1c"

// acvp reads one file of the module.
func acvp(t *testing.T, name string, into any) {
	t.Helper()
	out, err := exec.Command("go", "mod", "download", "-json", acvpModule).Output()
	var module struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &module); err != nil || jsonErr != nil || module.Error != "" {
		t.Fatalf("%s cannot be had: %v %v %s", acvpModule, err, jsonErr, module.Error)
	}
	f, err := os.Open(filepath.Join(module.Dir, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var parts []json.RawMessage // the session, the set of cases
	if err := json.NewDecoder(bzip2.NewReader(f)).Decode(&parts); err != nil || len(parts) != 2 {
		t.Fatalf("%s: %d parts, %v", name, len(parts), err)
	}
	if err := json.Unmarshal(parts[1], into); err != nil {
		t.Fatal(err)
	}
}

// acvpCase is a case, or the answer to it.
type acvpCase struct {
	TCID                      int
	Key, IV, AAD, PT, CT, Tag octets
	TestPassed                *bool
}

// TestACVP goes through NIST's cases, most of them with texts of kilobytes. Many have more additional data than a burst
// takes, or a shorter tag: of those, what does not depend on it is compared.
func TestACVP(t *testing.T) {
	var cases, answers struct {
		TestGroups []struct {
			TGID                          int
			KeyLen, IVLen, AADLen, TagLen int
			Direction                     string
			Tests                         []acvpCase
		}
	}
	acvp(t, "vectors/ACVP-AES-GCM.bz2", &cases)
	acvp(t, "expected/ACVP-AES-GCM.bz2", &answers)
	expected := map[int]acvpCase{}
	for _, g := range answers.TestGroups {
		for _, c := range g.Tests {
			expected[c.TCID] = c
		}
	}
	implementations(t, func(t *testing.T, v *Vault) {
		texts, tags := 0, 0
		for _, g := range cases.TestGroups {
			if g.KeyLen == 192 || g.IVLen != 96 {
				continue
			}
			for _, c := range g.Tests {
				want := expected[c.TCID]
				plain, sealed, tag := c.PT, want.CT, want.Tag
				if g.Direction == "decrypt" {
					if want.TestPassed != nil && !*want.TestPassed {
						continue
					}
					plain, sealed, tag = want.PT, c.CT, c.Tag
				}
				aad := c.AAD[:min(len(c.AAD), MaxAAD)]
				_, got := alone(t, v, c.Key, c.IV, aad, append(bytes.Clone(plain), make([]byte, TagSize)...), seal)
				texts++
				if !bytes.Equal(got[:len(plain)], sealed) {
					t.Errorf("case %d: %d bytes are sealed wrong", c.TCID, len(plain))
				}
				if len(aad) < len(c.AAD) {
					continue
				}
				tags++
				if !bytes.Equal(got[len(plain):][:g.TagLen/8], tag) {
					t.Errorf("case %d: tag %x, want %x", c.TCID, got[len(plain):][:g.TagLen/8], tag)
				}
				if b, opened := alone(t, v, c.Key, c.IV, aad, got, open); b.Failed(0) || !bytes.Equal(opened[:len(plain)], plain) {
					t.Errorf("case %d: opened wrong", c.TCID)
				}
			}
		}
		if texts < 16 || tags < 4 {
			t.Errorf("only %d texts and %d tags", texts, tags)
		}
	})
}
