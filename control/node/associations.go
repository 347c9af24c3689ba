package node

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"causeway/config"
	"causeway/control/api"
	"causeway/control/cluster"
	"causeway/crypto/aesgcm"
	"causeway/crypto/esp"
	"causeway/pipeline"
)

// Blocks of what is reserved on disk at a time: as much as is skipped after a crash. IVs are those of all associations
// of the node: four seconds at 16 million packets a second, and 2^18 crashes until they are used up. Without ESN an
// association has 2^32 sequence numbers, so its blocks begin small, for 2^14 crashes, and grow while they are used up fast.
const (
	ivReserve       = 1 << 26
	sequenceReserve = numberBlock
	firstReserve    = 1 << 18
)

// A block that lasts less than hurried is followed by one four times as large, one that lasts more than idle by a smaller one.
const (
	hurried = 2 * time.Second
	idle    = time.Minute
)

// receivedInterval is how often it is written down what was received: what came since the last time may come again once
// after a crash.
const receivedInterval = 2 * time.Second

// An inbound is a live association for receiving.
type inbound struct {
	sa   *esp.Inbound
	mark string // its key in espMarks.Received
}

// An outbound is a live association for sending.
type outbound struct {
	sa   *esp.Outbound
	of   config.ManualSA
	mark string // its key in espMarks.Sequence
	end  uint64 // below it are the sequence numbers that are its alone

	block  uint64    // how many are reserved at a time
	since  time.Time // when they were last
	warned bool      // that they come to their end
	tunnel string    // for that
}

// associations are the security associations of the node, and the marks that keep their IVs and sequence numbers from
// coming twice. Each lives as long as the configuration has it unchanged, whatever else is reloaded, also of its tunnel.
type associations struct {
	dir   *stateDir
	log   *slog.Logger
	vault *aesgcm.Vault
	ivs   *esp.IVSource

	mu   sync.Mutex // guards the maps
	ins  map[string]*inbound
	outs map[string]*outbound

	writing sync.Mutex // guards marks and file; taken before mu
	loaded  bool
	marks   espMarks
	failing bool      // extend could not write the last time
	noted   time.Time // when extend noted last what was received
}

func newAssociations(dir *stateDir, log *slog.Logger) *associations {
	return &associations{dir: dir, log: log, vault: aesgcm.NewVault(aesgcm.Options{}), ivs: new(esp.IVSource),
		ins: map[string]*inbound{}, outs: map[string]*outbound{}}
}

// prepare makes the associations that c has and that do not live yet, beside those that do, after what they need was reserved.
func (a *associations) prepare(c *config.Config) error {
	a.writing.Lock()
	defer a.writing.Unlock()
	fresh := a.missing(c)
	if len(fresh) == 0 && (!negotiates(c) || c.Cluster != nil) { // IVs are for those that IKE negotiates too, and for IKE itself: see number
		return nil
	}
	if err := a.load(); err != nil {
		return a.explain(err)
	}
	if len(fresh) == 0 {
		return nil
	}
	marks := a.marks.clone()
	a.noteReceived(marks) // one of them may have the keys of a fresh one
	ins, outs := map[string]*inbound{}, map[string]*outbound{}
	for _, t := range fresh {
		if err := a.make(t, &marks, ins, outs); err != nil {
			wipe(ins, outs)
			return fmt.Errorf("tunnel %s: %w", t.Name, err)
		}
	}
	if err := a.write(marks); err != nil {
		wipe(ins, outs)
		return a.explain(err)
	}
	for _, out := range outs {
		out.sa.Mark(out.end)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.Copy(a.ins, ins)
	maps.Copy(a.outs, outs)
	return nil
}

// negotiates reports whether c has a tunnel with IKE.
func negotiates(c *config.Config) bool {
	return slices.ContainsFunc(c.Tunnels, func(t config.Tunnel) bool { return t.IPsec != nil && t.IPsec.IKE != nil })
}

// missing lists the IPsec tunnels of c with keys in the file of which an association does not live.
func (a *associations) missing(c *config.Config) (out []config.Tunnel) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range c.Tunnels {
		if t.IPsec != nil && t.IPsec.IKE == nil && (a.ins[inKey(t.IPsec)] == nil || a.outs[outKey(t.IPsec)] == nil) {
			out = append(out, t)
		}
	}
	return out
}

// inKey and outKey tell apart all associations that may live at once: those of a configuration, and of the one before a
// reload. An SPI alone does not: it may have got another key, which stands in it as a hash.
func inKey(i *config.IPsec) string {
	return fmt.Sprintf("%d %s %v %d %x", i.SA.SPIIn, i.SA.Encryption, i.SA.ESN, i.ReplayWindow, sha256.Sum256(i.SA.KeyIn))
}

func outKey(i *config.IPsec) string {
	return fmt.Sprintf("%d %s %v %x", i.SA.SPIOut, i.SA.Encryption, i.SA.ESN, sha256.Sum256(i.SA.KeyOut))
}

// make makes what does not live yet of a tunnel's associations.
func (a *associations) make(t config.Tunnel, marks *espMarks, ins map[string]*inbound, outs map[string]*outbound) error {
	suite, err := esp.ParseSuite(t.IPsec.SA.Encryption)
	if err != nil {
		return err
	}
	if key := inKey(t.IPsec); a.ins[key] == nil {
		if ins[key], err = a.makeInbound(t.IPsec, suite, marks); err != nil {
			delete(ins, key)
			return err
		}
	}
	if key := outKey(t.IPsec); a.outs[key] == nil {
		if outs[key], err = a.makeOutbound(t, suite, marks); err != nil {
			delete(outs, key)
			return err
		}
	}
	return nil
}

func (a *associations) makeInbound(i *config.IPsec, suite esp.Suite, marks *espMarks) (*inbound, error) {
	in := &inbound{mark: markOf(i.SA.SPIIn, i.SA.KeyIn)}
	var err error
	in.sa, err = esp.NewInbound(a.vault, esp.Params{SPI: i.SA.SPIIn, Suite: suite, Key: i.SA.KeyIn, ESN: i.SA.ESN}, i.ReplayWindow)
	if err != nil {
		return nil, err
	}
	if i.ReplayWindow > 0 {
		in.sa.Begin(marks.Received[in.mark])
	}
	return in, nil
}

// makeOutbound makes an association whose sequence numbers begin at its mark, and moves the mark.
func (a *associations) makeOutbound(t config.Tunnel, suite esp.Suite, marks *espMarks) (*outbound, error) {
	sa := t.IPsec.SA
	out := &outbound{of: sa, mark: markOf(sa.SPIOut, sa.KeyOut), block: firstReserve, since: time.Now(), tunnel: t.Name}
	if sa.ESN {
		out.block = sequenceReserve
	}
	first := max(marks.Sequence[out.mark], 1)
	var err error
	out.sa, err = esp.NewOutbound(a.vault, esp.Params{SPI: sa.SPIOut, Suite: suite, Key: sa.KeyOut, ESN: sa.ESN}, first)
	if err != nil {
		return nil, err
	}
	out.end = first + out.block
	marks.Sequence[out.mark] = out.end
	return out, nil
}

// of returns what the workers are told of a tunnel's associations, if they are in the file.
func (a *associations) of(t config.Tunnel) *pipeline.SASpec {
	if t.IPsec == nil || t.IPsec.IKE != nil {
		return nil
	}
	s := &pipeline.SASpec{UDP: t.IPsec.SA.UDPEncap, Local: slices.Clone(t.IPsec.Local), Remote: slices.Clone(t.IPsec.Remote)}
	a.mu.Lock()
	defer a.mu.Unlock()
	if in, out := a.ins[inKey(t.IPsec)], a.outs[outKey(t.IPsec)]; in != nil && out != nil {
		s.Inbound, s.Outbound = []*esp.Inbound{in.sa}, out.sa
	}
	return s
}

// retain wipes all associations that c does not have. The workers must have left them. What was reserved for them and not
// used is given back, if the disk takes it.
func (a *associations) retain(c *config.Config) {
	a.writing.Lock()
	defer a.writing.Unlock()
	marks := a.marks.clone()
	ins, outs := a.remove(c)
	for _, in := range ins {
		marks.receive(in)
	}
	for _, out := range outs {
		marks.giveBack(out)
	}
	wipe(ins, outs)
	if !marks.equal(a.marks) {
		if a.write(marks) != nil {
			a.marks = marks // for the next write. Until then the higher marks stand there, and after a crash numbers are skipped
		}
	}
}

// remove takes out the associations that c does not have.
func (a *associations) remove(c *config.Config) (ins map[string]*inbound, outs map[string]*outbound) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ins, outs = a.ins, a.outs
	a.ins, a.outs = map[string]*inbound{}, map[string]*outbound{}
	for _, t := range c.Tunnels {
		if t.IPsec != nil && t.IPsec.IKE == nil {
			move(ins, a.ins, inKey(t.IPsec))
			move(outs, a.outs, outKey(t.IPsec))
		}
	}
	return ins, outs
}

func move[T any](from, to map[string]T, key string) {
	if v, ok := from[key]; ok {
		to[key] = v
		delete(from, key)
	}
}

// wipe ends associations that nobody uses.
func wipe(ins map[string]*inbound, outs map[string]*outbound) {
	for _, in := range ins {
		in.sa.Wipe()
	}
	for _, out := range outs {
		out.sa.Wipe()
	}
}

// load takes the state directory, reads the marks, the first time, and reserves the first IVs above them.
func (a *associations) load() error {
	if a.loaded {
		return nil
	}
	if err := a.dir.take(); err != nil {
		return err
	}
	marks, err := readESPMarks(a.dir)
	if errors.Is(err, fs.ErrNotExist) {
		marks, err = newESPMarks(), nil
		a.log.Info("no marks of IPsec tunnels, as with a new node: IVs begin at a random place, and sequence numbers at 1",
			"file", a.dir.file(espFile), "writer", marks.Writer)
	}
	if err != nil {
		return err
	}
	// The counter goes on above the mark with the same writer: a node without a cluster has one for ever.
	next := marks.IV
	a.marks = marks.clone()
	marks.IV = min(next+ivReserve, esp.MaxIVs)
	if err := a.write(marks); err != nil {
		return err
	}
	if err := a.ivs.Begin(marks.Writer, next); err != nil {
		return err
	}
	a.ivs.Reserve(marks.IV)
	a.loaded = true
	return nil
}

// number is what load is in a cluster, which gives the process a number for its IVs. No mark on disk is needed: no other process has it, or will.
func (a *associations) number(w cluster.Writer) error {
	if err := a.ivs.Begin(w.ID, 0); err != nil {
		return err
	}
	a.ivs.Reserve(esp.MaxIVs)
	return nil
}

// write replaces the file, before anything relies on it. It is called with writing held.
func (a *associations) write(marks espMarks) error {
	b, err := json.MarshalIndent(espMarksFile{marks, marks.check()}, "", "  ")
	if err != nil {
		return err
	}
	if err := a.dir.write(espFile, append(b, '\n')); err != nil {
		return err
	}
	a.marks = marks
	return nil
}

// extend moves the marks before what is reserved is used up. An error is returned once, and tried again the next time;
// when what is reserved is used up, packets are dropped.
func (a *associations) extend() error {
	a.writing.Lock()
	defer a.writing.Unlock()
	if !a.loaded {
		return nil
	}
	marks := a.marks.clone()
	if a.ivs.Next()+ivReserve/2 > marks.IV {
		marks.IV = min(a.ivs.Next()+ivReserve, esp.MaxIVs)
	}
	more := map[*outbound]reservation{}
	for _, out := range a.sending() {
		// Numbers above its own may be those of another association with the same key, which comes after it.
		if shown := out.sa.Next(); shown+out.block/2 > out.end && marks.Sequence[out.mark] == out.end {
			block := out.nextBlock()
			more[out] = reservation{shown + block, block}
			marks.Sequence[out.mark] = shown + block
		}
		a.warn(out)
	}
	if now := time.Now(); now.Sub(a.noted) >= receivedInterval {
		a.noteReceived(marks)
		a.noted = now
	}
	if marks.equal(a.marks) {
		return nil // and whether the disk takes it is as unknown as before
	}
	err := a.commit(marks, more)
	again := a.failing && err != nil
	a.failing = err != nil
	if again {
		return nil
	}
	return err
}

// nextBlock is how many sequence numbers are reserved next.
func (out *outbound) nextBlock() uint64 {
	switch lasted := time.Since(out.since); {
	case lasted < hurried:
		return min(4*out.block, sequenceReserve)
	case lasted > idle && !out.of.ESN:
		return max(out.block/4, firstReserve)
	}
	return out.block
}

// warn says once that an association comes to its end.
func (a *associations) warn(out *outbound) {
	if out.warned || !out.sa.Soft() {
		return
	}
	out.warned = true
	a.log.Warn("three quarters of an association's sequence numbers are used or were skipped: at 4294967296 the tunnel sends nothing more; "+
		"give both ends new keys and SPIs, or esn: true", "tunnel", out.tunnel, "spi", out.of.SPIOut, "next", out.sa.Next())
}

// noteReceived notes what the associations have received by now.
func (a *associations) noteReceived(marks espMarks) {
	for _, in := range a.receiving() {
		marks.receive(in)
	}
}

// A reservation is sequence numbers that an association may use once their end is written as a mark.
type reservation struct{ end, block uint64 }

// commit writes the marks, and only then permits what they reserve.
func (a *associations) commit(marks espMarks, more map[*outbound]reservation) error {
	if err := a.write(marks); err != nil {
		return err
	}
	a.ivs.Reserve(marks.IV)
	for out, r := range more {
		out.end, out.block, out.since = r.end, r.block, time.Now()
		out.sa.Mark(r.end)
	}
	return nil
}

func (a *associations) receiving() []*inbound {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Values(a.ins))
}

func (a *associations) sending() []*outbound {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Values(a.outs))
}

// settle writes where IVs and sequence numbers ended: the workers have stopped.
func (a *associations) settle() error {
	a.writing.Lock()
	defer a.writing.Unlock()
	if !a.loaded {
		return nil
	}
	marks := a.marks.clone()
	marks.IV = a.ivs.Next()
	for _, out := range a.sending() {
		marks.giveBack(out)
	}
	a.noteReceived(marks)
	if marks.equal(a.marks) {
		return nil
	}
	if err := a.write(marks); err != nil {
		return fmt.Errorf("where IVs and sequence numbers of IPsec tunnels ended is not written, so some are skipped at the next start, and what was received lately can come again: %w", err)
	}
	return nil
}

func (a *associations) explain(err error) error {
	if errors.Is(err, ErrStateInUse) || errors.Is(err, errStateOpen) || errors.Is(err, errNoMarks) {
		return err
	}
	return fmt.Errorf("node.state_dir: IPsec tunnels keep marks of their IVs and sequence numbers there: %w; %s", err, advice(err))
}

// close wipes all keys. The workers must have stopped.
func (a *associations) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.ins)
	clear(a.outs)
	return a.vault.Close()
}

// show lists the associations of the tunnels of c, in the order of the file.
func (a *associations) show(c *config.Config, negotiated *children, owner func(spi uint32) int) []api.SA {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := []api.SA{}
	for _, t := range c.Tunnels {
		if t.IPsec == nil {
			continue
		}
		if t.IPsec.IKE != nil {
			out = append(out, negotiated.show(t.Name, owner)...)
			continue
		}
		i := t.IPsec
		receiver, sender := a.ins[inKey(i)], a.outs[outKey(i)]
		if receiver == nil || sender == nil {
			continue
		}
		common := api.SA{Tunnel: t.Name, Encryption: i.SA.Encryption, ESN: i.SA.ESN, UDPEncap: i.SA.UDPEncap}
		in, outbound := common, common
		in.KeyID, outbound.KeyID = keyID(i.SA.KeyIn), keyID(i.SA.KeyOut)
		in.Direction, in.SPI, in.Worker, in.ReplayWindow, in.SoftExpired = "in", i.SA.SPIIn, owner(i.SA.SPIIn), i.ReplayWindow, receiver.sa.Soft()
		outbound.Direction, outbound.SPI, outbound.Worker, outbound.Sequence, outbound.SoftExpired = "out", i.SA.SPIOut, owner(i.SA.SPIOut), sender.sa.Next(), sender.sa.Soft()
		in.Sequence, in.Packets, in.Bytes, in.Refused = receiver.sa.Received(), receiver.sa.Packets(), receiver.sa.Bytes(), refused(receiver.sa.Refused, pipeline.OpenReason)
		outbound.Packets, outbound.Bytes, outbound.Refused = sender.sa.Packets(), sender.sa.Bytes(), refused(sender.sa.Refused, pipeline.SealReason)
		out = append(out, in, outbound)
	}
	return out
}

// refused names what an association refused by the reasons under which the pipeline drops it.
func refused(count func(esp.Verdict) uint64, reason func(esp.Verdict) pipeline.Reason) map[string]uint64 {
	out := map[string]uint64{}
	for v := esp.OK + 1; v < esp.Verdicts; v++ {
		if n := count(v); n > 0 {
			out[reason(v).Info().Label] += n
		}
	}
	return out
}
