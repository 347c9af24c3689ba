package clickhouse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"causeway/analytics/store/query"
)

const (
	// lag is how long after its end a minute is rolled up, and an hour twice as long.
	lag = 15
	// slack is how much longer seconds are kept than they are asked for. What comes later than that is rolled up of what came alone.
	slack = 24 * time.Hour
	// tidyEvery is how often what is too old is looked for.
	tidyEvery = 10 * time.Minute
)

// bad are the codes by which a server says that rows cannot be read, or do not fit its tables: they never will.
var bad = []int{6, 7, 16, 20, 26, 27, 33, 36, 38, 41, 43, 44, 53, 62, 69, 70, 72, 117, 349}

// Flush sends everything that is buffered, and rolls up what is over. It returns the first error; what was sent stays sent.
func (s *Store) Flush(ctx context.Context) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	if err := s.prepare(ctx); err != nil {
		return err
	}
	s.writing.Lock()
	fresh, err := s.buffer.seal()
	if fresh {
		s.encoder.number = 0
	}
	s.writing.Unlock()
	for err == nil {
		x := s.buffer.first()
		if x == nil {
			break
		}
		err = s.send(ctx, x)
	}
	if err == nil {
		err = s.roll(ctx)
	}
	if err == nil && s.o.Now().Sub(s.tidied) >= tidyEvery {
		if err = s.tidy(ctx); err == nil {
			s.tidied = s.o.Now()
		}
	}
	if code := codeOf(err); code == unknownTable || code == unknownDatabase {
		s.ready = false // somebody has removed it
	}
	return err
}

// prepare makes the tables that are not there.
func (s *Store) prepare(ctx context.Context) error {
	if s.ready {
		return nil
	}
	create := func() error {
		for i := range tables {
			if err := s.client.exec(ctx, tables[i].create(), url.Values{}); err != nil {
				return err
			}
		}
		return nil
	}
	err := create()
	if codeOf(err) == unknownDatabase {
		if err = s.client.exec(ctx, "CREATE DATABASE IF NOT EXISTS `"+s.client.database+"`", url.Values{"database": {"default"}}); err == nil {
			err = create()
		}
	}
	s.ready = err == nil
	return err
}

// send sends a segment, and removes it. What of it is there already is not written again.
func (s *Store) send(ctx context.Context, x *segment) error {
	chunks, damaged, err := s.buffer.read(x)
	if errors.Is(err, fs.ErrNotExist) { // there was no room for it
		return s.buffer.remove(x)
	}
	if err != nil {
		return err
	}
	if damaged {
		s.o.Log.Warn("analytics: the end of a buffer's file cannot be read: the process was killed while it wrote it",
			"file", s.buffer.path(x))
	}
	if err := s.touch(chunks); err != nil {
		return err
	}
	for _, c := range chunks {
		err := s.insert(ctx, x, c)
		if slices.Contains(bad, codeOf(err)) {
			s.refused.Add(uint64(c.rows))
			s.o.Log.Error("analytics: ClickHouse refuses rows, and they are dropped", "table", tables[c.table].name, "rows", c.rows, "error", err)
			continue
		}
		if err != nil {
			return err
		}
		s.sent.Add(uint64(c.rows))
	}
	return s.buffer.remove(x)
}

// insert writes one chunk, once. The server itself looks whether it has the segment's rows; and it lets no two requests of the same id run at
// the same time, so that a request which was given up, and runs nevertheless, and this one do not both find nothing.
func (s *Store) insert(ctx context.Context, x *segment, c *chunk) error {
	t := &tables[c.table]
	given := t.given()
	names := namesOf(given)
	last, condition, structureOf := fmt.Sprintf("toUInt64(%d)", x.number), "", given
	if t.once {
		condition = fmt.Sprintf(" WHERE (SELECT count() FROM %s WHERE t >= %d AND t <= %d AND node = %s AND chunk = %d%s) = 0",
			t.name, c.from, c.to, quote(s.o.Node), x.number, minutesOf(c))
	} else { // of rows that replace each other the last one stays
		last = fmt.Sprintf("toUInt64(%d) + n", x.number<<22)
		structureOf = with(given, "UInt64", "n")
	}
	sql := fmt.Sprintf("INSERT INTO %s (%s) SELECT %s, %s FROM b%s", t.name, namesOf(t.columns), names, last, condition)
	id := s.id("rows", strconv.FormatUint(x.number, 16), t.name, strconv.Itoa(int(c.partition)))
	return s.client.give(ctx, id, sql, structure(structureOf), c.text)
}

// minutesOf is what the key of seconds begins with.
func minutesOf(c *chunk) string {
	if c.table != trafficNow && c.table != dropsNow {
		return ""
	}
	return fmt.Sprintf(" AND intDiv(t, 60) >= %d AND intDiv(t, 60) <= %d", c.from/60, c.to/60)
}

// id names a request of this node.
func (s *Store) id(parts ...string) string {
	return "causeway/" + s.client.database + "/" + s.o.Node + "/" + strings.Join(parts, "/")
}

// A pending is minutes and hours, by their starts, of which there are seconds that are not rolled up. It stands in a file, so that a process
// that was killed goes on.
type pending struct {
	Minutes, Hours map[int64]bool
}

const pendingFile = "pending.json"

// load reads the file. Without one that can be read, nothing is known of the last hours: they are looked at again, which changes nothing where
// all is right.
func (s *Store) load() error {
	s.pending = pending{map[int64]bool{}, map[int64]bool{}}
	text, err := os.ReadFile(filepath.Join(s.buffer.dir, pendingFile))
	if err == nil {
		err = json.Unmarshal(text, &s.pending)
		if err == nil && s.pending.Minutes != nil && s.pending.Hours != nil {
			return nil
		}
		s.o.Log.Warn("analytics: a file of the buffer cannot be read; the last hours are rolled up again", "file", pendingFile)
		err = nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.pending = pending{map[int64]bool{}, map[int64]bool{}}
	now := s.o.Now().Unix() / 60 * 60
	for m := now - 3*hourSeconds; m <= now; m += 60 {
		s.pending.Minutes[m] = true
	}
	return nil
}

func (s *Store) save() error {
	text, err := json.Marshal(s.pending)
	if err != nil {
		return err
	}
	path := filepath.Join(s.buffer.dir, pendingFile)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// touch remembers which minutes are to be rolled up, before they have rows.
func (s *Store) touch(chunks []*chunk) error {
	before := len(s.pending.Minutes)
	for _, c := range chunks {
		if c.table != trafficNow && c.table != dropsNow {
			continue
		}
		for line := range strings.Lines(string(c.text)) {
			t, _, _ := strings.Cut(line, "\t")
			if at, err := strconv.ParseInt(t, 10, 64); err == nil {
				s.pending.Minutes[at/60*60] = true
			}
		}
	}
	if len(s.pending.Minutes) == before {
		return nil
	}
	return s.save()
}

// roll rolls up minutes and hours that are over.
func (s *Store) roll(ctx context.Context) error {
	now := s.o.Now().Unix()
	for _, r := range rollups {
		due, rest := s.pending.Minutes, s.pending.Hours
		if r.seconds == hourSeconds {
			due, rest = s.pending.Hours, nil
		}
		over := slices.Sorted(maps.Keys(due))
		over = slices.DeleteFunc(over, func(t int64) bool { return t+r.seconds+lag*r.wait > now })
		for len(over) > 0 {
			list := s.alike(r, over)
			over = over[len(list):]
			for i := range 2 {
				id := s.id("rollup", tables[r.into+i].name, strconv.FormatInt(list[0]/tables[r.into].partition, 10))
				if err := s.client.exec(ctx, s.rollup(r, i, list), url.Values{"query_id": {id}}); err != nil {
					return err
				}
			}
			for _, t := range list {
				delete(due, t)
				if rest != nil {
					rest[t/hourSeconds*hourSeconds] = true
				}
			}
			if err := s.save(); err != nil {
				return err
			}
		}
	}
	return nil
}

// alike is the first intervals that one statement can roll up: a partition's, which is written whole or not at all.
func (s *Store) alike(r resolution, over []int64) []int64 {
	gone := s.gone(r)
	for i, t := range over {
		if i == 60 || t/tables[r.into].partition != over[0]/tables[r.into].partition || (t < gone) != (over[0] < gone) {
			return over[:i]
		}
	}
	return over
}

// gone is before when rows that are rolled up may have been dropped.
func (s *Store) gone(r resolution) int64 {
	keep := s.o.Retention.Second + slack
	if r.from != trafficNow {
		keep = s.o.Retention.Minute
	}
	return s.o.Now().Add(-keep).Unix()
}

// A resolution is rows that are made of finer ones. Tables of drops follow those of traffic.
type resolution struct {
	seconds    int64
	from, into int
	wait       int64 // lags
}

var rollups = []resolution{{60, trafficNow, trafficMinutes, 1}, {hourSeconds, trafficMinutes, trafficHours, 2}}

// rollup is the statement that writes what intervals lack: their rows are added up, and of what one has the finer rows are subtracted. Done
// again it writes nothing; and rows that come later are added in the same way. Where finer rows may have been dropped, only intervals that have
// no rows yet get some. Only rows of this node are looked at, so that no other node does the same at the same time.
func (s *Store) rollup(r resolution, i int, starts []int64) string {
	list := make([]string, len(starts))
	for n, t := range starts {
		list[n] = strconv.FormatInt(t/r.seconds, 10)
	}
	in := fmt.Sprintf("node = %s AND intDiv(t, %d) IN (%s) AND t >= %d AND t < %d", quote(s.o.Node), r.seconds, strings.Join(list, ", "),
		starts[0], starts[len(starts)-1]+r.seconds)
	finer, into := &tables[r.from+i], &tables[r.into+i]
	peakPackets, peakBytes := "max(peak_packets)", "max(peak_bytes)"
	if r.from == trafficNow {
		peakPackets, peakBytes = "sum(packets)", "sum(bytes)"
	}
	names := into.columns[2 : len(into.columns)-5] // without t, series and counts
	some, back := make([]string, len(names)), make([]string, len(names))
	for n, c := range names {
		some[n], back[n] = fmt.Sprintf("any(%s) AS n%d", c.name, n), fmt.Sprintf("n%d", n)
	}
	const zero = "toInt64(0)"
	start := fmt.Sprintf("toUInt32(intDiv(t, %d) * %[1]d)", r.seconds)
	sums := "SELECT series AS e, u, p, b, d, pp, pb, " + zero + " AS kp, " + zero + " AS kb, toUInt8(0) AS k" +
		fmt.Sprintf(" FROM (SELECT series, v, any(%s) AS u, sum(packets) AS p, sum(bytes) AS b, sum(dropped) AS d, %s AS pp, %s AS pb FROM "+
			"(SELECT *, t AS v FROM %s WHERE %s) GROUP BY series, v)", start, peakPackets, peakBytes, finer.name, in)
	known := "SELECT series AS e, u, -packets AS p, -bytes AS b, -dropped AS d, " + zero + " AS pp, " + zero +
		" AS pb, peak_packets AS kp, peak_bytes AS kb, toUInt8(1) AS k" + fmt.Sprintf(" FROM (SELECT *, t AS u FROM %s WHERE %s)", into.name, in)
	having := "max(k) = 0"
	if starts[0] >= s.gone(r) {
		having += " OR sum(p) != 0 OR sum(b) != 0 OR sum(d) != 0 OR max(pp) > max(kp) OR max(pb) > max(kb)"
	}
	// The names of a series are looked up once, apart from the sums: those of each interval would take many times as long, and as much memory.
	// LEFT, because servers do not agree what ANY INNER is.
	return fmt.Sprintf("INSERT INTO %s (t, series, %s, packets, bytes, dropped, peak_packets, peak_bytes) "+
		"SELECT u, e, %s, tp, tb, td, mp, mb FROM (SELECT e, u, sum(p) AS tp, sum(b) AS tb, sum(d) AS td, max(pp) AS mp, max(pb) AS mb FROM "+
		"(%s UNION ALL %s) GROUP BY e, u HAVING %s) ANY LEFT JOIN (SELECT series AS e, %s FROM %s WHERE %s GROUP BY series) USING e",
		into.name, namesOf(names), strings.Join(back, ", "), sums, known, having, strings.Join(some, ", "), finer.name, in)
}

// tidy drops partitions that are too old. All nodes do it; one is enough.
func (s *Store) tidy(ctx context.Context) error {
	r, now := &s.o.Retention, s.o.Now()
	keep := map[string]time.Duration{"traffic_1s": r.Second + slack, "drops_1s": r.Second + slack, "traffic_1m": r.Minute, "drops_1m": r.Minute,
		"traffic_1h": r.Hour, "drops_1h": r.Hour, "samples": r.Samples, "tops_1m": r.Tops, "tops_1h": query.TopHours(r.Tops, r.Hour), "health": r.Health, "attacks": r.Attacks}
	byName := map[string]*table{}
	for i := range tables {
		byName[tables[i].name] = &tables[i]
	}
	type old struct{ table, partition string }
	var list []old
	// What was written to lately has rows that came late.
	sql := "SELECT table, partition FROM system.parts WHERE active AND database = " + quote(s.client.database) +
		" GROUP BY table, partition HAVING max(modification_time) < now() - 7200"
	err := s.client.rows(ctx, sql, url.Values{}, func(row []any) error {
		name, _ := row[0].(string)
		t := byName[name]
		text, _ := row[len(row)-1].(string)
		n, err := strconv.ParseInt(text, 10, 64)
		if t == nil || err != nil {
			return nil // a table of somebody else
		}
		if end := time.Unix((n+1)*t.partition, 0); end.Add(keep[name] + late).Before(now) {
			list = append(list, old{name, text})
		}
		return nil
	})
	for _, x := range list {
		err = errors.Join(err, s.client.exec(ctx, fmt.Sprintf("ALTER TABLE %s DROP PARTITION %s", x.table, x.partition), url.Values{}))
	}
	return err
}
