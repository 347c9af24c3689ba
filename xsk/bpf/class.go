package bpf

import "fmt"

// Class says why the steering program sent a frame where it did. Each frame that
// a port receives is counted in exactly one class; NoSocket alone counts again
// some of the worker's.
type Class uint8

// The worker's classes. All but Prefix are about frames to an endpoint.
const (
	GRE      = Class(steerSteerClassCLASS_GRE)
	ESP      = Class(steerSteerClassCLASS_ESP)
	ESPInUDP = Class(steerSteerClassCLASS_ESP_IN_UDP)
	// Fragment is every fragment of any protocol, the first one included.
	Fragment = Class(steerSteerClassCLASS_FRAGMENT)
	// Probe is an echo reply that begins as what answers a tunnel's probe.
	Probe = Class(steerSteerClassCLASS_PROBE)
	// Prefix is anything whose destination is inside a customer prefix.
	Prefix = Class(steerSteerClassCLASS_PREFIX)
)

// The kernel's classes.
const (
	// IKE is UDP/500 to an endpoint, and what UDP/4500 carries besides ESP: IKE
	// behind its non-ESP marker and NAT keepalives.
	IKE = Class(steerSteerClassCLASS_IKE)
	// EndpointOther is anything else to an endpoint: ping, BGP, ssh.
	EndpointOther = Class(steerSteerClassCLASS_ENDPOINT_OTHER)
	// Other is IP to any other destination: the host's own addresses, multicast,
	// link-local.
	Other = Class(steerSteerClassCLASS_OTHER)
	// NotIP is every other EtherType: ARP, LLDP, a second VLAN tag.
	NotIP = Class(steerSteerClassCLASS_NOT_IP)
	// GroupMAC is what came to a broadcast or multicast Ethernet address.
	GroupMAC = Class(steerSteerClassCLASS_GROUP_MAC)
	// Malformed is what is cut off before the decision, has the wrong IP version,
	// or has more than eight IPv6 extension headers.
	Malformed = Class(steerSteerClassCLASS_MALFORMED)
)

// NoSocket counts the frames of the worker's classes that went to the kernel
// because their queue had no socket.
const NoSocket = Class(steerSteerClassCLASS_NO_SOCKET)

const classes = int(steerSteerClassCLASS_COUNT)

var classNames = [classes]string{
	GRE:           "gre",
	ESP:           "esp",
	ESPInUDP:      "esp_in_udp",
	Fragment:      "fragment",
	Probe:         "probe",
	Prefix:        "prefix",
	IKE:           "ike",
	EndpointOther: "endpoint_other",
	Other:         "other",
	NotIP:         "not_ip",
	GroupMAC:      "group_mac",
	Malformed:     "malformed",
	NoSocket:      "no_socket",
}

// String returns the metric label of the class.
func (c Class) String() string {
	if int(c) < classes {
		return classNames[c]
	}
	return fmt.Sprintf("class(%d)", uint8(c))
}

// ToWorker reports whether frames of the class go to the worker's socket.
func (c Class) ToWorker() bool { return c <= Prefix }
