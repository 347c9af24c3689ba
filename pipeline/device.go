package pipeline

// Some tunnels have a device of the host's kernel, so that a routing daemon there speaks with the customer's router: what comes out of such a
// tunnel for our interface address is the device's, but for pings, which are answered here, and for what the control side wants for itself.

// A device gets at most so much of all workers together: a table of 100,000 routes is some thousand packets. Fewer than wait for the control
// side's attention, so that one device leaves room for others.
const (
	devicePerSecond, deviceBurst = 20_000, 512
)

// giveToDevice gives p, which is for the interface address of tunnel id, to the tunnel's device. It reports false if p is none of its packets:
// they come out of the tunnel itself.
func (w *worker) giveToDevice(t *Tables, p *packet, id int) bool {
	switch {
	case w.devices.out == nil || int(p.tunnel) != id || p.flags&pktOriginated != 0 || !t.devices[id]:
		return false
	case p.flags&pktInterfaceSource == 0 && t.secret(id): // the host has no way back but in clear: it knows the router alone
		return false
	case w.isForeignError(t, p):
		w.drop(p, HostForeignError)
	case !w.perTunnel[id].device.allow(w.now, devicePerSecond/int64(len(w.engine.workers)), deviceBurst/int64(len(w.engine.workers))):
		w.drop(p, DeviceRate)
	default:
		w.giveCopy(w.devices.out, &w.engine.devices.copyQueue, p, w.bytes(p))
	}
	return true
}
