package sqlite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"causeway/analytics/flow"
	"causeway/analytics/store"
	"causeway/analytics/store/query"
)

// half is a batch of which the rows of some days are written, and those of others are not.
type half struct {
	batch *store.Batch
	done  map[int64]bool
}

// errFull is told until Tidy finds that there is room again.
var errFull = errors.New("the directory is as large as it may be, and nothing in it can be removed; " +
	"raise MaxBytes or shorten the retention")

// Write writes a batch. After an error nothing of it is written, and the same *Batch can be written again; a batch around midnight can
// be written half, which Write knows when it is given the same batch again. Exact counts of the same second are added up, health of the
// same minute and attacks with the same account and id are replaced, tops of the same value are added up.
func (s *Store) Write(ctx context.Context, b *store.Batch) error {
	starts, err := daysOf(b, s.o.Now())
	if err != nil {
		return fmt.Errorf("analytics store %s: %w", s.dir, err)
	}
	if s.full.Load() {
		return fmt.Errorf("analytics store %s: %w", s.dir, errFull)
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.half == nil || s.half.batch != b {
		s.half = &half{b, map[int64]bool{}}
	}
	starts = slices.DeleteFunc(starts, func(start int64) bool { return s.half.done[start] })
	var open []*day
	for _, start := range starts {
		d := s.day(start)
		if err = s.begin(ctx, d, b); err != nil {
			break
		}
		open = append(open, d)
	}
	for _, d := range open {
		if err == nil {
			if err = d.commit(ctx); err == nil {
				d.next = 0
				s.half.done[d.start] = true
				continue
			}
			err = s.failed(d, err)
		} else {
			d.rollback()
			err = errors.Join(err, d.close()) // series that were new are not
		}
	}
	if err == nil {
		s.half = nil
	}
	return err
}

// daysOf are the days that a batch has rows of.
func daysOf(b *store.Batch, now time.Time) (starts []int64, err error) {
	latest := now.Unix() + secs
	add := func(t int64) {
		if t <= 0 || t > latest {
			err = fmt.Errorf("a row is of %s; it cannot be more than a day after now, %s: compare the clocks",
				time.Unix(t, 0).UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		}
		if start := t - t%secs; !slices.Contains(starts, start) && err == nil {
			starts = append(starts, start)
		}
	}
	for i := range b.Traffic {
		add(b.Traffic[i].Time)
	}
	for i := range b.Drops {
		add(b.Drops[i].Time)
	}
	for i := range b.Samples {
		add(b.Samples[i].Time.Unix())
	}
	for i := range b.Health {
		add(b.Health[i].Time)
	}
	for i := range b.Attacks {
		add(b.Attacks[i].Start)
	}
	for i := range b.Tops {
		add(b.Tops[i].Time)
	}
	slices.Sort(starts)
	return starts, err
}

// begin begins a transaction with the rows of one day.
func (s *Store) begin(ctx context.Context, d *day, b *store.Batch) error {
	if err := d.open(ctx); err != nil {
		return s.setAside(d, err)
	}
	s.mu.Lock()
	s.days[d.start] = d
	s.mu.Unlock()
	if err := d.begin(ctx); err != nil {
		return s.failed(d, err)
	}
	w := &writer{ctx: ctx, d: d, place: &b.Place}
	w.batch(b)
	if w.err != nil {
		d.rollback()
		return s.failed(d, w.err)
	}
	return nil
}

// failed closes a file after an error, so that the next who writes begins with what is on the disk.
func (s *Store) failed(d *day, err error) error {
	closed := d.close()
	return s.setAside(d, errors.Join(d.fail(err), closed))
}

// A writer writes rows of one day in one transaction. After an error it does nothing more.
type writer struct {
	ctx   context.Context
	d     *day
	place *store.Place
	err   error
}

func (w *writer) insert(text string, args ...any) {
	if w.err == nil {
		w.err = w.d.insert(w.ctx, text, args...)
	}
}

// mine reports whether a time is in the day.
func (w *writer) mine(t int64) bool { return t >= w.d.start && t < w.d.end() }

func (w *writer) batch(b *store.Batch) {
	for i := range b.Traffic {
		if r := &b.Traffic[i]; w.mine(r.Time) {
			w.exact("traffic", w.seriesOf(r.Account, r.Tunnel, r.Direction, ""), r.Time, r.Packets, r.Bytes, r.Dropped)
		}
	}
	for i := range b.Drops {
		if r := &b.Drops[i]; w.mine(r.Time) {
			w.exact("drops", w.seriesOf(r.Account, r.Tunnel, r.Direction, r.Reason), r.Time, r.Packets, 0, 0)
		}
	}
	for i := range b.Samples {
		if r := &b.Samples[i]; w.mine(r.Time.Unix()) {
			w.sample(r)
		}
	}
	for i := range b.Health {
		if r := &b.Health[i]; w.mine(r.Time) {
			w.health(r)
		}
	}
	for i := range b.Attacks {
		if r := &b.Attacks[i]; w.mine(r.Start) {
			w.attack(r)
		}
	}
	for i := range b.Tops {
		if r := &b.Tops[i]; w.mine(r.Time) {
			w.top(r)
		}
	}
}

func (w *writer) seriesOf(account string, t *flow.Tunnel, d flow.Direction, reason string) int64 {
	return w.id(query.SeriesOf(w.place, account, t, d, reason))
}

var insertSeries = "INSERT INTO series (id, " + seriesColumns + ") VALUES (?, " + marks(len(query.SeriesColumns)) + ")"

// id is the number of a series.
func (w *writer) id(s query.Series) int64 {
	id := w.d.series[s]
	if id == 0 {
		id = int64(len(w.d.series)) + 1
		args := []any{id}
		for _, f := range s.Fields() {
			args = append(args, *f)
		}
		w.insert(insertSeries, args...)
		w.d.series[s] = id
	}
	return id
}

const add = "packets = packets + excluded.packets, bytes = bytes + excluded.bytes, dropped = dropped + excluded.dropped"

// exact writes the count of one second. A row that comes after its minute, or its hour, was rolled up is added there as well.
func (w *writer) exact(table string, series, t int64, packets, bytes, dropped uint64) {
	p, b, d := query.Clamp(packets), query.Clamp(bytes), query.Clamp(dropped)
	if t >= w.d.rolled[60] {
		w.insert("INSERT INTO "+table+"_now (t, series, packets, bytes, dropped) VALUES (?, ?, ?, ?, ?) ON CONFLICT (t, series) DO UPDATE SET "+add,
			t, series, p, b, d)
		return
	}
	w.insert("INSERT INTO "+table+"_1s (minute, series, t, packets, bytes, dropped) VALUES (?, ?, ?, ?, ?, ?) "+
		"ON CONFLICT (minute, series, t) DO UPDATE SET "+add,
		t/60, series, t, p, b, d)
	for _, r := range rollups {
		if t < w.d.rolled[r.seconds] {
			w.insert("INSERT INTO "+table+r.suffix+" (series, t, packets, bytes, dropped, peak_packets, peak_bytes) "+
				"SELECT ?, ?, ?, ?, ?, packets, bytes FROM "+table+"_1s WHERE minute = ? AND series = ? AND t = ? "+
				"ON CONFLICT (series, t) DO UPDATE SET "+add+
				", peak_packets = MAX(peak_packets, excluded.peak_packets), peak_bytes = MAX(peak_bytes, excluded.peak_bytes)",
				series, t-t%r.seconds, p, b, d, t/60, series, t)
		}
	}
}

var insertSample = func() string {
	names := []string{"t", "series"}
	for _, c := range query.SampleColumns {
		names = append(names, c.Name)
	}
	return "INSERT INTO samples (" + strings.Join(names, ", ") + ") VALUES (" + marks(len(names)) + ")"
}()

func (w *writer) sample(r *store.Sample) {
	args := make([]any, 0, len(query.SampleColumns)+2)
	args = append(args, r.Time.Unix(), w.id(query.SampleSeries(w.place, r)))
	for i := range query.SampleColumns {
		args = append(args, query.SampleColumns[i].Value(r))
	}
	w.insert(insertSample, args...)
}

func (w *writer) health(r *store.Health) {
	active := 0
	if r.Active {
		active = 1
	}
	w.insert("INSERT OR REPLACE INTO health (series, t, remote, state, active, probes, lost, rtt_us) VALUES ("+marks(8)+")",
		w.seriesOf(r.Account, r.Tunnel, flow.NoTunnel, ""), r.Time, r.Remote, r.State, active, query.Clamp(r.Probes), query.Clamp(min(r.Lost, r.Probes)),
		float64(r.RTT)/float64(time.Microsecond))
}

var insertAttack = "INSERT OR REPLACE INTO attacks (t, ended, " + strings.Join(query.AttackTexts, ", ") + ", " +
	strings.Join(query.AttackNumbers, ", ") + ") VALUES (" + marks(2+len(query.AttackTexts)+len(query.AttackNumbers)) + ")"

func (w *writer) attack(r *store.Attack) {
	args := []any{r.Start, nil}
	if r.End != 0 {
		args[1] = r.End
	}
	texts, numbers := query.AttackValues(w.place, r)
	for _, v := range texts {
		args = append(args, v)
	}
	for _, v := range numbers {
		args = append(args, v)
	}
	w.insert(insertAttack, args...)
}
