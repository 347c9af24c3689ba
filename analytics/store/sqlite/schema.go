package sqlite

import (
	"fmt"
	"strings"

	"causeway/analytics/store/query"
)

// version is that of the schema, in PRAGMA user_version: 2 has the tables of tops beside those of 1.
const version = 2

// Table series has the columns of query.Series, which repeat from row to row: rows name a series by a number, which makes them a tenth as long.
var seriesColumns = strings.Join(query.SeriesColumns, ", ")

// schema makes a day's file. Seconds come in the order of time into *_now, where they are written next to each other. When their minute is
// rolled up they move to *_1s, where those of one series stand together within the minute: most queries ask for few series, and what is too
// old goes from one end. Rows of minutes and hours stand together by series.
func schema() string {
	var b strings.Builder
	b.WriteString("CREATE TABLE series (id INTEGER PRIMARY KEY, " + columns(query.SeriesColumns, "TEXT") + ");\n")
	for _, name := range exact {
		counts := columns([]string{"packets", "bytes", "dropped"}, "INTEGER")
		fmt.Fprintf(&b, "CREATE TABLE %s_now (t INTEGER NOT NULL, series INTEGER NOT NULL, %s, PRIMARY KEY (t, series)) WITHOUT ROWID;\n", name,
			counts)
		fmt.Fprintf(&b, "CREATE TABLE %s_1s (minute INTEGER NOT NULL, series INTEGER NOT NULL, t INTEGER NOT NULL, %s, "+
			"PRIMARY KEY (minute, series, t)) WITHOUT ROWID;\n",
			name, counts)
		for _, r := range []string{"1m", "1h"} {
			fmt.Fprintf(&b, "CREATE TABLE %s_%s (series INTEGER NOT NULL, t INTEGER NOT NULL, %s, PRIMARY KEY (series, t)) WITHOUT ROWID;\n",
				name, r, columns([]string{"packets", "bytes", "dropped", "peak_packets", "peak_bytes"}, "INTEGER"))
		}
	}
	// Rows before `until` have been rolled up into intervals of so many seconds.
	b.WriteString("CREATE TABLE rolled (seconds INTEGER PRIMARY KEY, until INTEGER NOT NULL);\n")
	b.WriteString("CREATE TABLE samples (t INTEGER NOT NULL, series INTEGER NOT NULL")
	for _, c := range query.SampleColumns {
		kind := "TEXT"
		if c.Number != nil {
			kind = "INTEGER"
		}
		b.WriteString(", " + columns([]string{c.Name}, kind))
	}
	b.WriteString(");\nCREATE INDEX samples_t ON samples (t);\n")
	b.WriteString("CREATE TABLE health (series INTEGER NOT NULL, t INTEGER NOT NULL, " + columns([]string{"remote", "state"}, "TEXT") + ", " +
		columns([]string{"active", "probes", "lost"}, "INTEGER") + ", rtt_us REAL NOT NULL, PRIMARY KEY (series, t)) WITHOUT ROWID;\n")
	b.WriteString("CREATE TABLE attacks (t INTEGER NOT NULL, ended INTEGER, " + columns(query.AttackTexts, "TEXT") + ", " + columns(query.AttackNumbers,
		"INTEGER") +
		", PRIMARY KEY (account, id)) WITHOUT ROWID;\n")
	b.WriteString(topSchema())
	return b.String()
}

// topSchema makes the tables of tops. Rows of one kind of one series stand together: nobody asks for several kinds. A kind is its number.
func topSchema() (out string) {
	for _, r := range rollups {
		out += "CREATE TABLE tops" + r.suffix + " (series INTEGER NOT NULL, kind INTEGER NOT NULL, t INTEGER NOT NULL, value TEXT NOT NULL, " +
			columns(query.TopNumbers, "INTEGER") + ", " + columns(query.TopFloats, "REAL") + ", PRIMARY KEY (series, kind, t, value)) WITHOUT ROWID;\n"
	}
	return out
}

// exact are the tables of exact counts. They have the same columns.
var exact = []string{"traffic", "drops"}

func columns(names []string, kind string) string {
	return strings.Join(names, " "+kind+" NOT NULL, ") + " " + kind + " NOT NULL"
}

// marks are so many question marks.
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }
