package hosts

import (
	"fmt"
	"strings"
	"testing"
)

// Two strongSwans know how to negotiate with each other: one in a guest, one in user space.
func TestRootSwansNegotiate(t *testing.T) {
	_, a, b := pair(t, LinkOptions{})
	conf := func(local, remote, inside, other string) string {
		return fmt.Sprintf(`
connections {
  c {
    version = 2
    local_addrs = %s
    remote_addrs = %s
    proposals = aes128gcm16-prfsha256-x25519
    local {
      auth = psk
      id = %[1]s
    }
    remote {
      auth = psk
      id = %[2]s
    }
    children {
      net {
        local_ts = %s
        remote_ts = %s
        esp_proposals = chacha20poly1305-ecp256
      }
    }
  }
}
secrets {
  ike-1 {
    secret = "a secret of these two"
  }
}
`, local, remote, inside, other)
	}
	a.Run("ip", "addr", "flush", "dev", "eth0")
	guest := a.Guest("g", "eth0")
	guest.Addr("vec0", []string{"192.0.2.1/24", "10.1.0.1/24"}, "192.0.2.2")
	b.Addr("lo", "10.2.0.1/24")
	left := guest.Swan("left", SwanOptions{Conf: conf("192.0.2.1", "192.0.2.2", "10.1.0.0/24", "10.2.0.0/24")}, b, "192.0.2.1")
	right := b.Swan("right", SwanOptions{Conf: conf("192.0.2.2", "192.0.2.1", "10.2.0.0/24", "10.1.0.0/24")})

	left.MustCtl("--initiate", "--child", "net")
	b.MustRun("ping", "-c1", "-I", "10.2.0.1", "10.1.0.1")
	for _, s := range []*Swan{left, right} {
		sas := s.SAs()
		if len(sas) != 1 || sas[0].Fields["state"] != "ESTABLISHED" || sas[0].Fields["dh-group"] != "CURVE_25519" ||
			len(sas[0].Children) != 1 || sas[0].Children[0].Fields["encr-alg"] != "CHACHA20_POLY1305" {
			t.Errorf("%s shows %+v", s.name, sas)
		}
	}
	right.MustCtl("--rekey", "--ike", "c")
	b.MustRun("ping", "-c1", "-I", "10.2.0.1", "10.1.0.1")
	left.Kill()
	if !strings.Contains(right.Log(), "established") {
		t.Errorf("log:\n%s", right.Log())
	}
}
