package doctor

import (
	"strings"
	"testing"

	"causeway/config"
)

// The report works for whoever asks, and says of each line how bad it is.
func TestExamineWithoutConfiguration(t *testing.T) {
	found := map[string]Finding{}
	for _, f := range Examine(nil) {
		if f.Level != OK && f.Level != Warn && f.Level != Fail {
			t.Errorf("%+v has no level", f)
		}
		if _, twice := found[f.What]; twice {
			t.Errorf("two lines about %s", f.What)
		}
		found[f.What] = f
	}
	for _, what := range []string{"kernel", "rights", "locked memory", "tun", "af-xdp", "shared-umem", "need-wakeup", "interfaces"} {
		if _, ok := found[what]; !ok {
			t.Errorf("no line about %s", what)
		}
	}
	if f := found["kernel"]; f.Level != OK || !strings.HasPrefix(f.Text, "Linux ") {
		t.Errorf("%+v", f)
	}
}

func TestAnInterfaceThatIsNotThereFails(t *testing.T) {
	c, err := config.Parse("test.yaml", []byte("interfaces: [{name: nosuch0}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	failed := map[string]bool{}
	for _, f := range Examine(c) {
		if f.Level == Fail {
			failed[f.What] = true
		}
	}
	if !failed["nosuch0"] || !failed["workers"] {
		t.Errorf("failures: %v", failed)
	}
}

func TestProcFields(t *testing.T) {
	if v, err := procField("/proc/self/status", "Name:"); err != nil || v == "" {
		t.Errorf("%q, %v", v, err)
	}
	if _, err := procField("/proc/self/status", "Nonesuch:"); err == nil {
		t.Error("a field that is not there was found")
	}
}
