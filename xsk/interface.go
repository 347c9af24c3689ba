package xsk

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// linkHeader is what a frame holds beside the MTU: Ethernet and one VLAN tag.
const linkHeader = 14 + 4

// MaxMTU is the largest MTU, in bytes, whose packets fit into one frame.
const MaxMTU = MaxPacket - linkHeader

// Interface is what matters to a port about a network interface.
type Interface struct {
	Name     string
	Index    int
	MTU      int    // bytes, without the link header
	Driver   string // "" if the driver does not say
	RxQueues int    // queues that packets can arrive on, in use now
	TxQueues int    // queues that can send, in use now
}

// LookupInterface reads an interface of the calling thread's network namespace.
func LookupInterface(name string) (*Interface, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		if op := (*net.OpError)(nil); errors.As(err, &op) {
			err = op.Err // without the name of the question
		}
		return nil, fmt.Errorf("interface %s: %w; `ip link` lists those of this network namespace", name, err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("interface %s: socket: %w", name, err)
	}
	defer unix.Close(fd)
	ifi := &Interface{Name: name, Index: link.Index, MTU: link.MTU}
	if info, err := unix.IoctlGetEthtoolDrvinfo(fd, name); err == nil {
		ifi.Driver = unix.ByteSliceToString(info.Driver[:])
	}
	if err := ifi.readQueues(fd); err != nil {
		return nil, err
	}
	return ifi, nil
}

// ethtoolChannels is struct ethtool_channels.
type ethtoolChannels struct {
	cmd                                    uint32
	maxRx, maxTx, maxOther, maxCombined    uint32
	rxCount, txCount, otherCount, combined uint32
}

// readQueues asks the driver, and sysfs where the driver does not answer.
func (ifi *Interface) readQueues(fd int) error {
	ch := ethtoolChannels{cmd: unix.ETHTOOL_GCHANNELS}
	if err := ethtool(fd, ifi.Name, unsafe.Pointer(&ch)); err == nil && ch.rxCount+ch.combined > 0 {
		ifi.RxQueues = int(ch.rxCount + ch.combined)
		ifi.TxQueues = int(ch.txCount + ch.combined)
		return nil
	}
	// sysfs shows the namespace it was mounted in, which need not be ours.
	dir := filepath.Join("/sys/class/net", ifi.Name)
	index, err := os.ReadFile(filepath.Join(dir, "ifindex"))
	if err != nil || strings.TrimSpace(string(index)) != strconv.Itoa(ifi.Index) {
		ifi.RxQueues, ifi.TxQueues = 1, 1 // a driver that cannot count has one
		return nil
	}
	entries, err := os.ReadDir(filepath.Join(dir, "queues"))
	if err != nil {
		return fmt.Errorf("interface %s: counting its queues: %w", ifi.Name, err)
	}
	for _, e := range entries {
		switch {
		case strings.HasPrefix(e.Name(), "rx-"):
			ifi.RxQueues++
		case strings.HasPrefix(e.Name(), "tx-"):
			ifi.TxQueues++
		}
	}
	return nil
}

// spread returns the queues that the card's hash spreads packets over, or nil
// if the driver has no such table.
func (ifi *Interface) spread() []int {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	// struct ethtool_rxfh_indir: command, number of entries, entries. Asked
	// with room for none it tells how many there are.
	table := []uint32{unix.ETHTOOL_GRXFHINDIR, 0}
	if err := ethtool(fd, ifi.Name, unsafe.Pointer(unsafe.SliceData(table))); err != nil || table[1] == 0 || table[1] > 1<<16 {
		return nil
	}
	table = append([]uint32{unix.ETHTOOL_GRXFHINDIR, table[1]}, make([]uint32, table[1])...)
	if err := ethtool(fd, ifi.Name, unsafe.Pointer(unsafe.SliceData(table))); err != nil {
		return nil
	}
	var queues []int
	for _, q := range table[2:] {
		queues = append(queues, int(q))
	}
	slices.Sort(queues)
	return slices.Compact(queues)
}

// ethtool issues one SIOCETHTOOL request on the structure at data.
func ethtool(fd int, name string, data unsafe.Pointer) error {
	var req struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // the kernel copies a whole struct ifreq
	}
	copy(req.name[:unix.IFNAMSIZ-1], name)
	req.data = data
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	if errno != 0 {
		return errno
	}
	return nil
}
