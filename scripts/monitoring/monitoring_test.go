// Package monitoring has no code: it keeps alerts.yaml, its tests and grafana.json true to the metrics that a node shows.
package monitoring

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"causeway/pipeline"
)

const root = "../.."

// A rule is one of alerts.yaml: of an alert, or of a series that is recorded.
type rule struct {
	Alert, Record, Expr string
	Labels              map[string]string
	Annotations         map[string]string
}

func readRules(t *testing.T) []rule {
	t.Helper()
	var file struct {
		Groups []struct{ Rules []rule }
	}
	read(t, "alerts.yaml", yaml.Unmarshal, &file)
	var all []rule
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) < 50 {
		t.Fatalf("%d rules were read", len(all))
	}
	return all
}

func read(t *testing.T, name string, parse func([]byte, any) error, into any) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err == nil {
		err = parse(text, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// promtool runs it; its last words are the error.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("promtool"); err != nil {
		t.Fatal("needs promtool: run scripts/deps.sh, or: apt-get install -y --no-install-recommends prometheus")
	}
	if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestRulesAreGood(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "rules", "alerts.yaml")
	promtool(t, "test", "rules", "alerts_test.yaml")
}

// A tests is what alerts_test.yaml and the test of the panels need of promtool's format.
type tests struct {
	RuleFiles          []string `yaml:"rule_files"`
	EvaluationInterval string   `yaml:"evaluation_interval"`
	Tests              []group  `yaml:"tests"`
}

type group struct {
	Name        string        `yaml:"name"`
	Interval    string        `yaml:"interval"`
	InputSeries []series      `yaml:"input_series"`
	Expressions []expectation `yaml:"promql_expr_test"`
}

type series struct {
	Series string `yaml:"series"`
	Values string `yaml:"values"`
}

type expectation struct {
	Expr     string   `yaml:"expr"`
	EvalTime string   `yaml:"eval_time"`
	Samples  []sample `yaml:"exp_samples"`
}

type sample struct {
	Labels string  `yaml:"labels"`
	Value  float64 `yaml:"value"`
}

var (
	alertName   = regexp.MustCompile(`alertname="(\w+)"`)
	labelOfText = regexp.MustCompile(`\$labels\.(\w+)`)
)

// Each alert is seen silent and firing, and what it fires with has the labels that its texts name.
func TestEveryAlertIsTested(t *testing.T) {
	var file tests
	read(t, "alerts_test.yaml", yaml.Unmarshal, &file)
	silent, firing := map[string]bool{}, map[string][]string{}
	for _, g := range file.Tests {
		for _, e := range g.Expressions {
			m := alertName.FindStringSubmatch(e.Expr)
			if m == nil {
				continue
			}
			silent[m[1]] = silent[m[1]] || len(e.Samples) == 0
			for _, s := range e.Samples {
				firing[m[1]] = append(firing[m[1]], s.Labels)
			}
		}
	}
	for _, r := range readRules(t) {
		if r.Alert == "" {
			continue
		}
		if !silent[r.Alert] || len(firing[r.Alert]) == 0 {
			t.Errorf("%s: alerts_test.yaml must have a time when it is silent (has: %v) and one when it fires (has: %d)", r.Alert, silent[r.Alert], len(firing[r.Alert]))
		}
		for _, text := range r.Annotations {
			for _, m := range labelOfText.FindAllStringSubmatch(text, -1) {
				for _, labels := range firing[r.Alert] {
					if !strings.Contains(labels, m[1]+"=") {
						t.Errorf("%s: its text has $labels.%s, and it fires with %s", r.Alert, m[1], labels)
					}
				}
			}
		}
	}
}

// Each alert says how urgent it is, what is so, what to do next, and where there is more.
func TestTexts(t *testing.T) {
	for _, r := range readRules(t) {
		if r.Alert == "" {
			continue
		}
		if s := r.Labels["severity"]; s != "critical" && s != "warning" && s != "info" {
			t.Errorf("%s: severity %q: critical, warning or info", r.Alert, s)
		}
		for _, name := range []string{"summary", "description", "action", "runbook"} {
			if r.Annotations[name] == "" {
				t.Errorf("%s has no %s", r.Alert, name)
			}
		}
		if err := leads(r.Annotations["runbook"]); err != nil {
			t.Errorf("%s: %v", r.Alert, err)
		}
	}
}

func TestRunbooksCanBeWrong(t *testing.T) {
	for runbook, good := range map[string]bool{
		"docs/operations.md#drop-reasons": true, "docs/operations.md#ike": true, "docs/operations.md#ike-1": true, "docs/health.md": true,
		"docs/operations.md#drop-raisins": false, "docs/operation.md#drop-reasons": false, "docs/operations.md#ike-2": false, "operations.md": false, "": false,
	} {
		if err := leads(runbook); (err == nil) != good {
			t.Errorf("%q: %v", runbook, err)
		}
	}
}

var heading = regexp.MustCompile(`(?m)^#+ (.+)$`)

// leads says whether a runbook, a path from the root of the repository, has a page and a section. Names of sections are made as
// GitHub does: small letters, no punctuation, spaces as hyphens, a number behind those that come again.
func leads(runbook string) error {
	page, section, named := strings.Cut(runbook, "#")
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil || !strings.HasPrefix(page, "docs/") {
		return fmt.Errorf("runbook %q: there is no such page below docs/", runbook)
	}
	seen := map[string]int{}
	for _, m := range heading.FindAllStringSubmatch(string(text), -1) {
		name := regexp.MustCompile(`[^\w -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		name = strings.ReplaceAll(name, " ", "-")
		if seen[name]++; seen[name] > 1 {
			name += "-" + strconv.Itoa(seen[name]-1)
		}
		if name == section {
			return nil
		}
	}
	if named {
		return fmt.Errorf("runbook %q: the page has no such section", runbook)
	}
	return nil
}

// known is the labels of every series that an expression may name: metrics of a node by its collector's source (as far as they are
// in the list that is a contract), what Prometheus and the Go client add, and what alerts.yaml records.
func known(t *testing.T, rules []rule) map[string][]string {
	t.Helper()
	source, err := os.ReadFile(filepath.Join(root, "control/metrics/collector.go"))
	if err != nil {
		t.Fatal(err)
	}
	contract, err := os.ReadFile(filepath.Join(root, "control/metrics/testdata/names.txt"))
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Fields(string(contract))
	all := map[string][]string{
		"up": nil, "process_start_time_seconds": nil, "process_cpu_seconds_total": nil, "process_resident_memory_bytes": nil,
		"ALERTS": {"alertname", "alertstate", "severity"},
	}
	described := regexp.MustCompile(`desc\("(\w+)", "(?:[^"\\]|\\.)*"((?:, "\w+")*)\)`)
	for _, m := range described.FindAllStringSubmatch(string(source), -1) {
		name := "causeway_" + m[1]
		if !slices.Contains(names, name) {
			continue
		}
		labels := strings.FieldsFunc(m[2], func(r rune) bool { return r == ',' || r == ' ' || r == '"' })
		all[name] = labels
		if name == "causeway_worker_poll_gap_seconds" {
			all[name+"_count"], all[name+"_bucket"] = labels, append([]string{"le"}, labels...)
		}
	}
	if len(all) < len(names) {
		t.Fatalf("%d of %d metrics were read", len(all), len(names))
	}
	for _, r := range rules {
		if r.Record != "" {
			all[r.Record] = []string{"tunnel", "account"}
		}
	}
	return all
}

var (
	braces   = regexp.MustCompile(`\{[^}]*\}`)
	named    = regexp.MustCompile(`\b(?:(?:causeway|process|go)[_:][\w:]+|up\b|ALERTS\b)`)
	selected = regexp.MustCompile(`([\w:]+)\{([^}]*)\}`)
	matched  = regexp.MustCompile(`(\w+)(=~|!~|!=|=)"([^"]*)"`)
	grouped  = regexp.MustCompile(`\b(?:by|on|ignoring|without|group_left|group_right) ?\(([^)]*)\)`)
)

// judge says what is wrong in an expression: series, labels and values of labels that no node shows.
func judge(all map[string][]string, expr string) (wrong []string) {
	target := []string{"instance", "job"}
	there := slices.Clone(target)
	for _, name := range named.FindAllString(braces.ReplaceAllString(expr, ""), -1) {
		labels, ok := all[name]
		if !ok {
			wrong = append(wrong, "there is no "+name)
		}
		there = append(there, labels...)
	}
	for _, m := range selected.FindAllStringSubmatch(expr, -1) {
		for _, l := range matched.FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains(target, l[1]) && !slices.Contains(all[m[1]], l[1]) {
				wrong = append(wrong, m[1]+" has no label "+l[1])
			} else if bad := badValue(m[1], l[1], l[3]); bad != "" {
				wrong = append(wrong, bad)
			}
		}
	}
	for _, m := range grouped.FindAllStringSubmatch(expr, -1) {
		for _, l := range strings.FieldsFunc(m[1], func(r rune) bool { return r == ',' || r == ' ' }) {
			if !slices.Contains(there, l) {
				wrong = append(wrong, "no series has the label "+l)
			}
		}
	}
	return wrong
}

// badValue looks at values that come from tables of the program: one that was misspelt never matches, and nobody notices.
func badValue(metric, label, value string) string {
	var may []string
	switch {
	case metric == "causeway_dropped_packets_total" && (label == "reason" || label == "stage"):
		for _, r := range pipeline.AllReasons() {
			may = append(may, map[string]string{"reason": r.Info().Label, "stage": string(r.Info().Stage)}[label])
		}
	case label == "le":
		for i := range pipeline.PollGapBuckets - 1 {
			may = append(may, strconv.FormatFloat(float64(pipeline.PollGapBound(i))/1e9, 'g', -1, 64))
		}
	default:
		return ""
	}
	for _, v := range strings.Split(value, "|") {
		if !slices.Contains(may, v) {
			return fmt.Sprintf("%s has no %s %q", metric, label, v)
		}
	}
	return ""
}

func TestRulesNameWhatThereIs(t *testing.T) {
	rules := readRules(t)
	all := known(t, rules)
	for _, r := range rules {
		for _, w := range judge(all, r.Expr) {
			t.Errorf("%s%s: %s", r.Alert, r.Record, w)
		}
	}
}

// The series that the tests of alerts make up are such as a node shows: otherwise an alert is tested that never fires.
func TestTestsNameWhatThereIs(t *testing.T) {
	all := known(t, readRules(t))
	all["causeway_worker_poll_gap_seconds_sum"] = all["causeway_worker_poll_gap_seconds_count"]
	var file tests
	read(t, "alerts_test.yaml", yaml.Unmarshal, &file)
	for _, g := range file.Tests {
		for _, s := range g.InputSeries {
			if strings.Contains(s.Series, `le="+Inf"`) {
				continue
			}
			for _, w := range judge(all, s.Series) {
				t.Errorf("%s: %s: %s", g.Name, s.Series, w)
			}
			name, labels, _ := strings.Cut(s.Series, "{")
			for _, l := range all[name] {
				if !strings.Contains(labels, l+"=") {
					t.Errorf("%s: %s: a node shows it with a label %s", g.Name, s.Series, l)
				}
			}
		}
	}
}

func TestJudgeFindsFaults(t *testing.T) {
	all := known(t, readRules(t))
	for expr, want := range map[string]string{
		`rate(causeway_worker_frame_total[5m])`:                               "there is no causeway_worker_frame_total",
		`causeway_ready{tunnel="x"}`:                                          "causeway_ready has no label tunnel",
		`sum by (account) (causeway_sa_info)`:                                 "no series has the label account",
		`causeway_dropped_packets_total{reason=~"esp_forged|esp_forgot"}`:     `has no reason "esp_forgot"`,
		`causeway_worker_poll_gap_seconds_bucket{le="0.01"}`:                  `has no le "0.01"`,
		`causeway:tunnel_health:good2h < 1`:                                   "there is no causeway:tunnel_health:good2h",
		`sum by (instance) (causeway_dropped_packets_total{stage="transmt"})`: `has no stage "transmt"`,
	} {
		if got := strings.Join(judge(all, expr), "; "); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
}

// A dashboard is what is looked at of grafana.json.
type dashboard struct {
	UID           string
	SchemaVersion int
	Panels        []panel
	Templating    struct {
		List []struct{ Name, Type, Definition string }
	}
	Annotations struct {
		List []struct{ Expr string }
	}
}

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               struct{ UID string }
	GridPos                  struct{ H, W, X, Y int }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Targets                  []struct{ Expr, LegendFormat string }
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	read(t, "grafana.json", json.Unmarshal, &d)
	if len(d.Panels) < 30 {
		t.Fatalf("%d panels were read", len(d.Panels))
	}
	return d
}

// Every panel has a text, a unit and the chosen data source, asks for what there is, and covers no other one.
func TestDashboard(t *testing.T) {
	d, all := readDashboard(t), known(t, readRules(t))
	if d.UID != "causeway" || d.SchemaVersion < 39 {
		t.Errorf("uid %q, schema %d", d.UID, d.SchemaVersion)
	}
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("%s: its id %d comes twice", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" || x > 23 {
					t.Fatalf("%s: it covers %q or leaves the grid", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || p.FieldConfig.Defaults.Unit == "" || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("%s: description %q, unit %q, data source %q, %d targets", p.Title, p.Description, p.FieldConfig.Defaults.Unit, p.Datasource.UID, len(p.Targets))
		}
		for _, q := range p.Targets {
			for _, w := range append(judge(all, q.Expr), strangers(q.Expr, q.LegendFormat, all)...) {
				t.Errorf("%s: %s", p.Title, w)
			}
		}
	}
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			for _, w := range judge(all, v.Definition) {
				t.Errorf("variable %s: %s", v.Name, w)
			}
		}
	}
}

// strangers are labels in a legend that the series of an expression do not have: Grafana would show nothing.
func strangers(expr, legend string, all map[string][]string) (wrong []string) {
	var has []string
	if by := grouped.FindStringSubmatch(expr); by != nil {
		has = strings.Split(by[1], ", ")
	} else {
		has = append(has, "instance", "job")
		for _, name := range named.FindAllString(expr, -1) {
			has = append(has, all[name]...)
		}
	}
	for _, m := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(legend, -1) {
		if !slices.Contains(has, m[1]) {
			wrong = append(wrong, fmt.Sprintf("legend %q: %s has no label %s", legend, expr, m[1]))
		}
	}
	return wrong
}

// Nothing in the dashboard is of one installation.
func TestDashboardIsOfNoPlace(t *testing.T) {
	text, err := os.ReadFile("grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile(`https?://|localhost|\d+\.\d+\.\d+\.\d+`).Find(text); m != nil {
		t.Errorf("it has %q", m)
	}
	var names []string
	for _, v := range readDashboard(t).Templating.List {
		names = append(names, v.Name)
	}
	if !slices.Equal(names, []string{"datasource", "node", "account", "tunnel"}) {
		t.Errorf("variables %v", names)
	}
}

// silentWhenWell are the panels that show nothing while a fleet is without faults.
var silentWhenWell = []string{"Tunnels without a route"}

// Prometheus itself is asked what each panel asks, about the healthy fleet of alerts_test.yaml: all but those above show something.
func TestPanelsShowSomething(t *testing.T) {
	t.Parallel()
	var file tests
	read(t, "alerts_test.yaml", yaml.Unmarshal, &file)
	fleet := file.Tests[0]
	fleet.Expressions = nil
	variables := strings.NewReplacer("$__rate_interval", "5m", "$node", ".*", "$account", ".*", "$tunnel", ".*")
	asked := map[string]bool{}
	for _, p := range readDashboard(t).Panels {
		for _, q := range p.Targets {
			want := []sample{{Labels: "{}", Value: 1}}
			if slices.Contains(silentWhenWell, p.Title) {
				want = []sample{}
			}
			expr := "count(" + variables.Replace(q.Expr) + ") > bool 0"
			if !asked[expr] {
				fleet.Expressions = append(fleet.Expressions, expectation{expr, "10m", want})
			}
			asked[expr] = true
		}
	}
	if strings.Contains(strings.Join(slices.Collect(maps.Keys(asked)), ""), "$") {
		t.Error("an expression has a variable that is not set here")
	}
	rules, err := filepath.Abs("alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal(tests{RuleFiles: []string{rules}, EvaluationInterval: "15s", Tests: []group{fleet}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "panels.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "test", "rules", path)
}
