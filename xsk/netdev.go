package xsk

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// What a driver says about itself through the "netdev" generic netlink family
// (Linux 6.3, Documentation/netlink/specs/netdev.yaml): the one way to learn of
// zero-copy without taking a queue.

// xdp-features bits.
const (
	xdpBasic     = 1 << 0
	xdpRedirect  = 1 << 1
	xdpZeroCopy  = 1 << 3
	xdpReceiveSG = 1 << 5
)

// Numbers of the netdev family that golang.org/x/sys does not have.
const (
	netdevCmdDevGet    = 1
	netdevAttrIfindex  = 1
	netdevAttrFeatures = 3
)

// errUnknown means that the kernel is too old to say what its drivers can do.
var errUnknown = errors.New("this kernel does not report driver features (linux 6.3 or later does)")

// xdpFeatures returns the xdp-features of an interface.
func xdpFeatures(ifindex int) (uint64, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	if err != nil {
		return 0, fmt.Errorf("netlink: %w", err)
	}
	defer unix.Close(fd)
	reply, err := genlAsk(fd, unix.GENL_ID_CTRL, unix.CTRL_CMD_GETFAMILY,
		unix.CTRL_ATTR_FAMILY_NAME, []byte("netdev\x00"))
	if errors.Is(err, unix.ENOENT) {
		return 0, errUnknown
	}
	if err != nil {
		return 0, fmt.Errorf("netlink family netdev: %w", err)
	}
	id := attribute(reply, unix.CTRL_ATTR_FAMILY_ID)
	if len(id) != 2 {
		return 0, errUnknown
	}
	index := binary.NativeEndian.AppendUint32(nil, uint32(ifindex))
	reply, err = genlAsk(fd, binary.NativeEndian.Uint16(id), netdevCmdDevGet, netdevAttrIfindex, index)
	if err != nil {
		return 0, fmt.Errorf("netlink netdev dev-get %d: %w", ifindex, err)
	}
	value := attribute(reply, netdevAttrFeatures)
	if len(value) != 8 {
		return 0, errUnknown
	}
	return binary.NativeEndian.Uint64(value), nil
}

// genlAsk sends a generic netlink request with one attribute and returns the
// attributes of the answer.
func genlAsk(fd int, family uint16, command uint8, attr uint16, value []byte) ([]byte, error) {
	const genlHeader = 4
	total := unix.NLMSG_HDRLEN + genlHeader + unix.NLA_HDRLEN + roundUp(len(value), unix.NLA_ALIGNTO)
	e := binary.NativeEndian
	msg := make([]byte, 0, total)
	msg = e.AppendUint32(msg, uint32(total))
	msg = e.AppendUint16(msg, family)
	msg = e.AppendUint16(msg, unix.NLM_F_REQUEST)
	msg = e.AppendUint64(msg, 1) // sequence 1, port 0: the kernel fills it in
	msg = append(msg, command, 1, 0, 0)
	msg = e.AppendUint16(msg, uint16(unix.NLA_HDRLEN+len(value)))
	msg = e.AppendUint16(msg, attr)
	msg = append(msg, value...)
	msg = msg[:total]
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	answer := make([]byte, 32<<10)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return nil, err
	}
	return genlAnswer(answer[:n])
}

// genlAnswer strips the headers off the first message, or returns its error.
func genlAnswer(msg []byte) ([]byte, error) {
	if len(msg) < unix.NLMSG_HDRLEN+4 {
		return nil, fmt.Errorf("netlink answer of %d bytes", len(msg))
	}
	if binary.NativeEndian.Uint16(msg[4:]) == unix.NLMSG_ERROR {
		return nil, unix.Errno(-int32(binary.NativeEndian.Uint32(msg[unix.NLMSG_HDRLEN:])))
	}
	length := int(binary.NativeEndian.Uint32(msg))
	if length < unix.NLMSG_HDRLEN+4 || length > len(msg) {
		return nil, fmt.Errorf("netlink answer says %d bytes, has %d", length, len(msg))
	}
	return msg[unix.NLMSG_HDRLEN+4 : length], nil
}

// attribute finds one netlink attribute; nil if there is none.
func attribute(b []byte, want uint16) []byte {
	for len(b) >= unix.NLA_HDRLEN {
		length := int(binary.NativeEndian.Uint16(b))
		kind := binary.NativeEndian.Uint16(b[2:]) & ^uint16(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)
		if length < unix.NLA_HDRLEN || length > len(b) {
			return nil
		}
		if kind == want {
			return b[unix.NLA_HDRLEN:length]
		}
		b = b[min(roundUp(length, unix.NLA_ALIGNTO), len(b)):]
	}
	return nil
}
