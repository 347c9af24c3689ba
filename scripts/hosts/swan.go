package hosts

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Swan is strongSwan's IKE daemon, a customer's router that negotiates. It has a directory, a /run
// and a control socket of its own, so there may be several on one machine.
type Swan struct {
	t       testing.TB
	name    string
	dir     string
	place   func(text string) (string, error) // runs shell text where the daemon runs
	control *Host                             // where its control socket can be reached
	uri     string                            // of the control socket
	script  string                            // swan.sh
}

// SwanOptions configure a Swan.
type SwanOptions struct {
	Conf     string            // swanctl.conf
	Files    map[string]string // more of swanctl's directory, by name: x509/a.pem, x509ca/ca.pem, private/a.pem
	Settings string            // lines for charon { } of strongswan.conf
}

// Swan starts a Swan in the host, with ESP in user space (kernel-libipsec) on a device ipsec0. It
// sends and takes UDP-encapsulated ESP only, claims to be behind a NAT to get it, and knows no ESN.
func (h *Host) Swan(name string, o SwanOptions) *Swan {
	h.net.t.Helper()
	s := &Swan{t: h.net.t, name: h.Name + ": " + name, dir: filepath.Join(h.net.dir, h.Name+"-"+name), control: h,
		place: func(text string) (string, error) { return h.Run("bash", "-c", text) }}
	s.uri = "unix://" + s.dir + "/vici"
	s.start(o, "libipsec")
	return s
}

// Swan starts a Swan in the guest, with ESP in the guest's kernel. It is controlled from another
// host, over TCP to an IPv4 address of the guest, because a process in a guest costs a second.
func (g *Guest) Swan(name string, o SwanOptions, control *Host, address string) *Swan {
	g.net.t.Helper()
	// The guest's run directory is at the same path in the guest.
	s := &Swan{t: g.net.t, name: g.Name + ": " + name, dir: filepath.Join("/tmp/causeway-uml", g.id, name), control: control, place: g.Sh,
		uri: "tcp://" + address + ":4502"}
	s.start(o, "netlink")
	return s
}

func (s *Swan) start(o SwanOptions, backend string) {
	s.t.Helper()
	need(s.t, "swanctl", "strongswan-swanctl")
	need(s.t, "/usr/lib/ipsec/charon", "strongswan-charon")
	source, err := os.ReadFile(script(s.t, "scripts/peers/swan.sh"))
	if err != nil {
		s.t.Fatal(err)
	}
	// A copy, since a guest does not see a repository under /tmp.
	s.script = filepath.Join(s.dir, "swan.sh")
	s.write("swan.sh", string(source), 0o755)
	s.write("swanctl.conf", o.Conf, 0o600)
	s.write("charon.conf", o.Settings, 0o600)
	for name, text := range o.Files {
		s.write(name, text, 0o600)
	}
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Logf("%s: the end of charon's log:\n%s", s.name, tail(s.Log(), 400))
		}
		_, _ = s.place(s.words("kill")) // a guest may be gone already
	})
	s.must(s.control.Run("bash", "-c", s.words("configure", backend, s.uri)))
	s.must(s.place(s.words("run")))
	s.must(s.control.Run("bash", "-c", s.words("load")))
}

func (s *Swan) write(name, text string, mode os.FileMode) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), mode)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *Swan) must(out string, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", s.name, err, out)
	}
}

// words is a command line of swan.sh.
func (s *Swan) words(verb string, words ...string) string {
	return strings.Join(append([]string{s.script, verb, s.dir}, words...), " ")
}

// Ctl runs swanctl: Ctl("--initiate", "--child", "net"). The error is nil if its status was 0.
func (s *Swan) Ctl(words ...string) (string, error) {
	// What swan.sh ctl does, without its shells: tests say much to many.
	command := []string{"env", "SWANCTL_DIR=" + s.dir, "STRONGSWAN_CONF=" + s.dir + "/strongswan.conf", "swanctl", words[0], "--uri", s.uri}
	out, err := s.control.Run(append(command, words[1:]...)...)
	for range 3 {
		if err == nil || !strings.Contains(out, "failed: Connection reset by peer") {
			break
		}
		// charon 5.9.8 drops connections to its socket when many come at one time, before it has done anything for them: it logs what it is
		// asked for first, and of these has logged nothing.
		out, err = s.control.Run(append(command, words[1:]...)...)
	}
	if err != nil {
		return out, fmt.Errorf("%s: swanctl %s: %w", s.name, strings.Join(words, " "), err)
	}
	return out, nil
}

// MustCtl is Ctl for what has to succeed.
func (s *Swan) MustCtl(words ...string) string {
	s.t.Helper()
	out, err := s.Ctl(words...)
	if err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// Log returns what the daemon has logged.
func (s *Swan) Log() string {
	out, err := s.place("cat " + s.dir + "/log")
	if err != nil {
		return fmt.Sprintf("%v\n%s", err, out)
	}
	return out
}

var (
	dumpHead = regexp.MustCompile(`\[(?:IKE|CHD|LIB|ENC)\] +([^=]*?) => (\d+) bytes @ 0x`)
	dumpLine = regexp.MustCompile(`\] +\d+: ((?:[0-9A-F]{2} )+)`)
)

// Secrets are byte strings that the daemon has dumped into its log, in hexadecimal digits, by the names that it gives them, oldest
// first. It dumps keys ("Sk_ei secret", "encryption initiator key") if the settings have SwanSecrets.
func (s *Swan) Secrets() map[string][]string {
	return secretsIn(s.Log())
}

// SwanSecrets are settings of a Swan that make it log keys.
const SwanSecrets = "filelog {\n f {\n ike = 4\n chd = 4\n }\n}\n"

func secretsIn(log string) map[string][]string {
	out, name, current, want := map[string][]string{}, "", "", 0
	for line := range strings.Lines(log) {
		if m := dumpHead.FindStringSubmatch(line); m != nil {
			name, current, want = m[1], "", 0
			fmt.Sscan(m[2], &want)
			continue
		}
		m := dumpLine.FindStringSubmatch(line)
		if m == nil || want == 0 {
			continue
		}
		current += strings.ToLower(strings.ReplaceAll(m[1], " ", ""))
		if len(current) >= 2*want {
			out[name] = append(out[name], current[:2*want])
			want = 0
		}
	}
	return out
}

// Kill ends the daemon with SIGKILL: its peers are not told.
func (s *Swan) Kill() {
	s.t.Helper()
	s.must(s.place(s.words("kill")))
}

// A SwanSA is an IKE SA as swanctl --list-sas --raw shows it. Fields are named as there: state,
// initiator-spi, encr-alg. Of a child they are state, spi-in, packets-in, local-ts.
type SwanSA struct {
	Name     string // of the connection, or child
	Fields   map[string]string
	Children []SwanSA
}

// SAs returns the daemon's IKE SAs.
func (s *Swan) SAs() []SwanSA {
	s.t.Helper()
	return parseSAs(s.MustCtl("--list-sas", "--raw"))
}

// parseSAs reads lines such as
//
//	list-sa event {c {state=ESTABLISHED remote-id=C=CH, O=acme child-sas {net-1 {state=INSTALLED local-ts=[10.1.0.0/24 10.2.0.0/24]}}}}
//
// in which a word without a known beginning goes on with the value before it.
func parseSAs(text string) []SwanSA {
	var list []SwanSA
	for line := range strings.Lines(text) {
		body, ok := strings.CutPrefix(line, "list-sa event {")
		if !ok {
			continue
		}
		body = strings.NewReplacer("{", " { ", "}", " } ").Replace(body)
		words := strings.Fields(body)
		list = append(list, sections(&words)...)
	}
	return list
}

// sections takes name { ... } from the words until the } that ends those around them.
func sections(words *[]string) []SwanSA {
	var list []SwanSA
	for len(*words) > 1 && (*words)[0] != "}" {
		sa := SwanSA{Name: (*words)[0], Fields: map[string]string{}}
		*words = (*words)[2:]
		key := ""
		for len(*words) > 0 && (*words)[0] != "}" {
			word := (*words)[0]
			if word == "child-sas" {
				*words = (*words)[2:]
				sa.Children = sections(words)
			} else if name, value, ok := strings.Cut(word, "="); ok && name == strings.ToLower(name) {
				key, sa.Fields[name] = name, value
			} else {
				sa.Fields[key] += " " + word
			}
			*words = (*words)[min(1, len(*words)):]
		}
		*words = (*words)[min(1, len(*words)):]
		list = append(list, sa)
	}
	return list
}
