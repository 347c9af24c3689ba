package suite

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"causeway/control/ike/message"
)

// slowChoose writes down every combination that one of ours permits, the ones that we like best first, and takes the first that an offered
// proposal permits too: of each type exactly one transform that the proposal has, or NONE where it has none of the type.
func slowChoose(own, offered []message.Proposal) (message.Proposal, bool) {
	permits := func(p message.Proposal, t message.Transform) bool {
		none := !slices.ContainsFunc(p.Transforms, func(x message.Transform) bool { return x.Type == t.Type })
		return slices.Contains(p.Transforms, t) || none && t == message.Transform{Type: t.Type}
	}
	for _, o := range own {
		for _, p := range offered {
			if o.Protocol != p.Protocol || slices.ContainsFunc(p.Transforms, func(t message.Transform) bool { return t.Type == 0 || t.Type > 12 }) {
				continue
			}
			combinations := [][]message.Transform{nil}
			for kind := message.TransformType(1); kind <= 12; kind++ {
				mine := []message.Transform{{Type: kind}}
				if slices.ContainsFunc(o.Transforms, func(x message.Transform) bool { return x.Type == kind }) {
					mine = slices.DeleteFunc(slices.Clone(o.Transforms), func(x message.Transform) bool { return x.Type != kind })
				}
				var longer [][]message.Transform
				for _, c := range combinations {
					for _, m := range mine {
						longer = append(longer, append(slices.Clone(c), m))
					}
				}
				combinations = longer
			}
			for _, c := range combinations {
				if !slices.ContainsFunc(c, func(t message.Transform) bool { return !permits(p, t) }) {
					// the answer has of each type what the offer has of it
					c = slices.DeleteFunc(c, func(t message.Transform) bool {
						return !slices.ContainsFunc(p.Transforms, func(x message.Transform) bool { return x.Type == t.Type })
					})
					return message.Proposal{Number: p.Number, Protocol: p.Protocol, SPI: p.SPI, Transforms: c}, true
				}
			}
		}
	}
	return message.Proposal{}, false
}

// anyProposals are small, so that they often have something in common. Offered ones have what we never have: unknown types, attributes.
func anyProposals(offered bool) *rapid.Generator[[]message.Proposal] {
	kinds := []message.TransformType{1, 3, 4, 5, 6, 7, 12}
	bits := []int{0, 128}
	if offered {
		kinds, bits = append(kinds, 0, 13), append(bits, message.UnknownAttribute)
	}
	transforms := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) message.Transform {
		x := message.Transform{Type: rapid.SampledFrom(kinds).Draw(t, "type"), ID: rapid.Uint16Range(0, 2).Draw(t, "id")}
		if x.Type == 1 {
			x.KeyBits = rapid.SampledFrom(bits).Draw(t, "bits")
		}
		return x
	}), 0, 6, rapid.ID[message.Transform])
	return rapid.Custom(func(t *rapid.T) (list []message.Proposal) {
		for i := range rapid.IntRange(0, 3).Draw(t, "n") {
			list = append(list, message.Proposal{Number: uint8(i + 1), Protocol: rapid.SampledFrom([]message.Protocol{1, 3}).Draw(t, "protocol"),
				SPI: []byte{byte(i)}, Transforms: transforms.Draw(t, "transforms")})
		}
		return list
	})
}

func TestChooseAgainstOracle(t *testing.T) {
	chosen := 0
	rapid.Check(t, func(t *rapid.T) {
		own, offered := anyProposals(false).Draw(t, "own"), anyProposals(true).Draw(t, "offered")
		if rapid.Bool().Draw(t, "alike") { // or they seldom have anything in common
			for _, p := range own {
				if rapid.Bool().Draw(t, "with more") {
					more := message.Transform{Type: rapid.SampledFrom([]message.TransformType{1, 3, 6}).Draw(t, "type"), ID: rapid.Uint16Range(0, 2).Draw(t, "id")}
					p.Transforms = append(slices.Clone(p.Transforms), more)
				}
				offered = append(offered, p)
			}
			for i := range offered {
				offered[i].Number = uint8(i + 1)
			}
		}
		got, err := Choose(own, offered)
		want, ok := slowChoose(own, offered)
		if ok != (err == nil) {
			t.Fatalf("%v, the oracle finds one: %v", err, ok)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
		if err == nil {
			chosen++
			if err := Check(got, offered); err != nil {
				t.Errorf("its peer would not believe it: %v", err)
			}
		} else if len(offered) > 0 && strings.Count(err.Error(), "; ") != len(offered)-1 {
			t.Errorf("%d offered proposals failed, the error has %q", len(offered), err)
		}
	})
	if chosen == 0 {
		t.Error("there never was anything in common")
	}
}

// TestChoose has what peers send.
func TestChoose(t *testing.T) {
	ike := func(w string) message.Proposal { p, err := ParseIKE(w, true); check(t, err); return p }
	child := func(w string) message.Proposal { p, err := ParseESP(w, true, true); check(t, err); return p }
	with := func(p message.Proposal, more ...message.Transform) message.Proposal {
		p.Transforms = append(slices.Clone(p.Transforms), more...)
		return p
	}
	without := func(p message.Proposal, kind message.TransformType) message.Proposal {
		p.Transforms = slices.DeleteFunc(slices.Clone(p.Transforms), func(t message.Transform) bool { return t.Type == kind })
		return p
	}
	for _, c := range []struct {
		name string
		own  message.Proposal
		them message.Proposal
		want string // words, or else what the error says
	}{
		{"our preference", ike("aes256gcm16-aes128gcm16-prfsha384-ecp384"), ike("aes128gcm16-aes256gcm16-prfsha384-ecp384"), "aes256gcm16-prfsha384-ecp384"},
		{"INTEG NONE beside GCM", ike("aes256gcm16-prfsha384-ecp384"), with(ike("aes256gcm16-prfsha384-ecp384"), message.Transform{Type: 3}), "aes256gcm16-prfsha384-ecp384"},
		{"INTEG beside GCM", ike("aes256gcm16-prfsha384-ecp384"), with(ike("aes256gcm16-prfsha384-ecp384"), message.Transform{Type: 3, ID: HMACSHA256}), "!no common integrity, ours are none"},
		{"additional exchange not wanted", ike("aes256gcm16-prfsha384-ecp384"), ike("aes256gcm16-prfsha384-ecp384-ke1_mlkem768"), "!no common additional key exchange 1, ours are ke1_none"},
		{"additional exchange optional", ike("aes256gcm16-prfsha384-ecp384"), with(ike("aes256gcm16-prfsha384-ecp384-ke1_mlkem768"), message.Transform{Type: 6}), "aes256gcm16-prfsha384-ecp384-ke1_none"},
		{"additional exchange demanded", ike("aes256gcm16-prfsha384-ecp384-ke1_mlkem768"), ike("aes256gcm16-prfsha384-ecp384"), "!no common additional key exchange 1, ours are ke1_mlkem768"},
		{"unknown type", ike("aes256gcm16-prfsha384-ecp384"), with(ike("aes256gcm16-prfsha384-ecp384"), message.Transform{Type: 13, ID: 1}), "!transform type 13 is not known"},
		{"key length of another", ike("aes256gcm16-prfsha384-ecp384"), ike("aes128gcm16-prfsha384-ecp384"), "!no common encryption, ours are aes256gcm16"},
		{"no PRF", ike("aes256gcm16-prfsha384-ecp384"), without(ike("aes256gcm16-prfsha384-ecp384"), 2), "!no common prf"},
		{"PFS demanded", child("aes256gcm16-ecp384"), child("aes256gcm16"), "!no common key exchange, ours are ecp384"},
		{"PFS not wanted", child("aes256gcm16"), child("aes256gcm16-ecp384"), "!no common key exchange, ours are none"},
		{"group unusable", child("aes256gcm16"), with(child("aes256gcm16"), message.Transform{Type: 4, ID: ECP384, KeyBits: message.UnknownAttribute}), "!no common key exchange"},
		{"ESN left out is none", child("aes256gcm16"), without(child("aes256gcm16"), 5), "aes256gcm16"},
		{"ESN demanded", child("aes256gcm16-esn"), child("aes256gcm16-noesn"), "!no common sequence numbers, ours are esn"},
		{"another protocol", child("aes256gcm16"), message.Proposal{Protocol: message.ProtocolAH}, "!nothing is permitted for AH"},
	} {
		c.them.Number, c.them.SPI = 7, []byte{1, 2, 3, 4}
		p, err := Choose([]message.Proposal{c.own}, []message.Proposal{c.them})
		switch says, fails := strings.CutPrefix(c.want, "!"); {
		case fails && (err == nil || !strings.Contains(err.Error(), says)):
			t.Errorf("%s: %s, %v, want ...%s...", c.name, Words(p), err, says)
		case !fails && (err != nil || Words(p) != c.want && sorted(Words(p)) != sorted(c.want) || p.Number != 7 || !slices.Equal(p.SPI, c.them.SPI)):
			t.Errorf("%s: %+v %s, %v", c.name, p, Words(p), err)
		}
	}
	if _, err := Choose(DefaultIKE(false), nil); err == nil {
		t.Error("chosen from nothing")
	}
}

func sorted(words string) string {
	list := strings.Split(words, "-")
	slices.Sort(list)
	return strings.Join(list, "-")
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// flood is as much as a message may have, and fails as late as it can.
func flood() (list []message.Proposal) {
	for i := range 32 {
		p := message.Proposal{Number: uint8(i + 1), Protocol: message.ProtocolIKE}
		for k := range 123 {
			p.Transforms = append(p.Transforms, message.Transform{Type: message.TransformType(1 + k%4), ID: uint16(1000 + k)})
		}
		list = append(list, message.Proposal{Number: p.Number, Protocol: p.Protocol, Transforms: append(p.Transforms, message.Transform{Type: 1, ID: AESGCM16, KeyBits: 128},
			message.Transform{Type: 2, ID: uint16(PRFHMACSHA256)}, message.Transform{Type: 3}, message.Transform{Type: 4, ID: MODP2048}, message.Transform{Type: 12, ID: MLKEM768})})
	}
	return list
}

// TestChooseUnderAttack: a stranger's message costs little memory, and no long lines in the log.
func TestChooseUnderAttack(t *testing.T) {
	own, offered := DefaultIKE(false), flood()
	_, err := Choose(own, offered)
	if err == nil || len(err.Error()) > 5000 {
		t.Fatalf("an error of %d bytes", len(err.Error()))
	}
	if !strings.Contains(err.Error(), " and 88 more: ") || !strings.HasSuffix(err.Error(), "; and 24 more") {
		t.Error(err)
	}
	if n := testing.AllocsPerRun(10, func() { Choose(own, offered) }); n > 1500 { // of the error's text
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkChoose(b *testing.B) {
	own := DefaultIKE(false)
	for name, offered := range map[string][]message.Proposal{"ours": own, "flood": flood()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Choose(own, offered)
			}
		})
	}
}

// TestCheck: a responder cannot choose what was not offered, nothing at all, or two of a type.
func TestCheck(t *testing.T) {
	own := []message.Proposal{{Number: 1, Protocol: message.ProtocolESP, Transforms: []message.Transform{{Type: 1, ID: AESGCM16, KeyBits: 256}, {Type: 4, ID: ECP384}, {Type: 5}}},
		{Number: 2, Protocol: message.ProtocolESP, Transforms: []message.Transform{{Type: 1, ID: AESCBC, KeyBits: 256}, {Type: 1, ID: AESCBC, KeyBits: 128}, {Type: 3, ID: HMACSHA256}, {Type: 5}}}}
	gcm, ecp, noesn := own[0].Transforms[0], own[0].Transforms[1], own[0].Transforms[2]
	for _, c := range []struct {
		name     string
		number   uint8
		protocol message.Protocol
		list     []message.Transform
		says     string // empty: it is right
	}{
		{"right", 1, 3, []message.Transform{gcm, ecp, noesn}, ""},
		{"INTEG NONE", 1, 3, []message.Transform{gcm, {Type: 3}, ecp, noesn}, ""},
		{"ESN left out", 1, 3, []message.Transform{gcm, ecp}, ""},
		{"second", 2, 3, own[1].Transforms[1:], ""},
		{"PFS left out", 1, 3, []message.Transform{gcm, noesn}, "no key exchange"},
		{"PFS NONE", 1, 3, []message.Transform{gcm, {Type: 4}, noesn}, "was not offered"},
		{"INTEG left out", 2, 3, []message.Transform{own[1].Transforms[0], noesn}, "no integrity"},
		{"INTEG NONE with CBC", 2, 3, []message.Transform{own[1].Transforms[0], {Type: 3}, noesn}, "was not offered"},
		{"two ciphers", 2, 3, own[1].Transforms, "two of encryption"},
		{"twice", 1, 3, []message.Transform{gcm, gcm, ecp, noesn}, "two of encryption"},
		{"key length", 1, 3, []message.Transform{{Type: 1, ID: AESGCM16, KeyBits: 128}, ecp, noesn}, "aes128gcm16 was not offered"},
		{"mixed", 2, 3, []message.Transform{gcm, noesn}, "was not offered"},
		{"ESN", 1, 3, []message.Transform{gcm, ecp, {Type: 5, ID: 1}}, "esn was not offered"},
		{"more", 1, 3, []message.Transform{gcm, ecp, noesn, {Type: 6, ID: MLKEM768}}, "was not offered"},
		{"number", 3, 3, []message.Transform{gcm, ecp, noesn}, "proposal 3 was not offered"},
		{"protocol", 1, 1, []message.Transform{gcm, ecp, noesn}, "proposal 1 was not offered"},
		{"nothing", 1, 3, nil, "no encryption"},
	} {
		err := Check(message.Proposal{Number: c.number, Protocol: c.protocol, Transforms: c.list}, own)
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
}

// TestOursAreAll: the error names what each of our proposals that fit equally well permits.
func TestOursAreAll(t *testing.T) {
	offered := message.Proposal{Number: 1, Protocol: message.ProtocolIKE, Transforms: []message.Transform{{Type: message.TransformEncryption, ID: 3}}}
	_, err := Choose(DefaultIKE(false), []message.Proposal{offered})
	if err == nil {
		t.Fatal("chosen")
	}
	_, ours, _ := strings.Cut(err.Error(), "ours are ")
	for _, word := range []string{"aes256gcm16", "chacha20poly1305", "aes256", "aes128"} {
		if !slices.Contains(strings.Split(ours, ", "), word) {
			t.Errorf("%v: without %s", err, word)
		}
	}
}
