package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
	"slices"
	"time"

	"causeway/analytics/flow"
	"causeway/analytics/store"
	"causeway/analytics/top"
)

// What is most frequent in a minute, or an hour, is counted in memory until that is over: a process that is killed takes it along. Its samples
// are here, and so it is counted again of them. They may be fewer than were counted, where more came than are kept.

// closed is what the file that locks a store has after Close: who finds nothing in it comes after a process that was killed.
const closed = "closed\n"

// takeOver reads whether the process before was killed, and has the next one find that this one was, until Close.
func (s *Store) takeOver() error {
	b, err := io.ReadAll(io.LimitReader(s.lock, int64(len(closed))))
	s.killed = string(b) != closed
	return errors.Join(err, s.lock.Truncate(0))
}

// letGo says that the store was closed.
func letGo(lock *os.File) error {
	_, err := lock.WriteAt([]byte(closed), 0)
	return errors.Join(err, lock.Close())
}

// An interval is one of tops.
type interval struct {
	start, length int64 // seconds
}

func (i interval) hour() bool { return i.length == 3600 }

// recount counts again what a killed process had not written yet, or in part: the last minutes and hours of its samples.
func (s *Store) recount(ctx context.Context) error {
	for _, d := range slices.Backward(s.between(math.MinInt64, s.opened)) {
		var last sql.NullInt64
		err := s.read(ctx, d, 2, func(tx *sql.Tx) error {
			return tx.QueryRowContext(ctx, "SELECT MAX(t) FROM samples WHERE t < ?", s.opened).Scan(&last)
		})
		if err != nil {
			return err
		}
		if !last.Valid {
			continue
		}
		// Rows of a minute and of an hour are written in the course of the minute that follows.
		for _, x := range []interval{{last.Int64 - last.Int64%60, 60}, {last.Int64 - last.Int64%60 - 60, 60}, {last.Int64 - last.Int64%3600, 3600},
			{last.Int64 - last.Int64%3600 - 3600, 3600}} {
			if last.Int64 < x.start+x.length+60 {
				if err := s.recountOne(ctx, x); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return nil
}

// recountOne counts an interval again, in the place of what there is of it.
func (s *Store) recountOne(ctx context.Context, x interval) error {
	days := s.between(x.start, x.start+1)
	if len(days) == 0 {
		return nil
	}
	var place store.Place
	var rows []store.Top
	err := s.read(ctx, days[0], 2, func(tx *sql.Tx) (err error) {
		place, rows, err = listed(ctx, tx, x, s.opened)
		return err
	})
	if err != nil || len(rows) == 0 {
		return err
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	d := days[0]
	if d.gone || s.opened < x.start+x.length && s.o.Now().Unix() >= x.start+x.length { // this process may have rows of its own in it
		return nil
	}
	if err := d.open(ctx); err != nil {
		return s.setAside(d, err)
	}
	table := "tops" + map[bool]string{false: "_1m", true: "_1h"}[x.hour()]
	err = d.transaction(ctx, func() error {
		w := &writer{ctx: ctx, d: d, place: &place}
		if _, w.err = d.conn.ExecContext(ctx, "DELETE FROM "+table+" WHERE t = ?", x.start); w.err == nil {
			w.batch(&store.Batch{Tops: rows})
		}
		return w.err
	})
	if err != nil {
		return s.failed(d, err)
	}
	d.next = 0
	return nil
}

// listed is what the samples of an interval, before a time, have of the most frequent, and where they were taken.
func listed(ctx context.Context, tx *sql.Tx, x interval, before int64) (p store.Place, rows []store.Top, err error) {
	var origins bool
	err = tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM samples WHERE t >= ? AND t < ? AND (src_country <> '' OR dst_country <> '' OR src_asn + dst_asn > 0))",
		x.start, min(x.start+x.length, before)).Scan(&origins)
	if err != nil {
		return p, nil, err
	}
	o := top.Options{Origins: origins, Values: top.OfMinute, Rows: top.RowsOfMinute}
	if x.hour() {
		o = top.Options{Origins: origins, Values: top.OfHour}
	}
	c := top.New(o)
	err = each(ctx, tx, "SELECT "+sampled+" FROM samples r CROSS JOIN series s ON s.id = r.series WHERE r.t >= ? AND r.t < ?", func(scan func(...any) error) error {
		var r store.Sample
		if err := scanSample(scan, &p, &r); err != nil {
			return err
		}
		c.Observe(&r)
		return nil
	}, x.start, min(x.start+x.length, before))
	return p, c.End(x.start, x.hour()), err
}

// sampled are the columns of a sample that top looks at, and those of its place.
const sampled = "s.node, s.datacenter, s.region, s.city, s.country, s.geohash, s.account, s.in_id, s.in_name, s.on_ramp, s.out_id, s.out_name, s.off_ramp, " +
	"r.t, r.every, r.length, r.ethertype, r.src, r.dst, r.src_port, r.dst_port, r.protocol, r.tcp_flags, r.src_country, r.dst_country, r.src_asn, r.dst_asn"

// scanSample reads them.
func scanSample(scan func(...any) error, p *store.Place, r *store.Sample) error {
	var in, out flow.Tunnel
	var t int64
	var version, src, dst string
	h := &r.Packet
	if err := scan(&p.Node, &p.DataCenter, &p.Region, &p.City, &p.Country, &p.Geohash, &r.Account, &in.ID, &in.Name, &in.Kind, &out.ID, &out.Name, &out.Kind,
		&t, &r.Every, &r.Length, &version, &src, &dst, &h.SrcPort, &h.DstPort, &h.Protocol, &h.TCP.Flags, &r.Src.Country, &r.Dst.Country, &r.Src.ASN,
		&r.Dst.ASN); err != nil {
		return fmt.Errorf("reading a sample: %w", err)
	}
	r.Time = time.Unix(t, 0)
	h.Version = map[string]uint8{"IPv4": 4, "IPv6": 6}[version]
	h.Src, _ = netip.ParseAddr(src) // one that is none is none
	h.Dst, _ = netip.ParseAddr(dst)
	for _, x := range []struct {
		of *flow.Tunnel
		to **flow.Tunnel
	}{{&in, &r.In}, {&out, &r.Out}} {
		if x.of.ID != "" {
			x.of.Account = r.Account
			*x.to = x.of
		}
	}
	return nil
}
