package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// book is a journal that has something of kubelet, and repeats what it is asked.
type book struct {
	mu    sync.Mutex
	reads []string
	fails error
}

func (k *book) Has(_ context.Context, names []string) ([]string, error) {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name != "kubelet" && name != "broken" }), nil
}

func (k *book) Read(_ context.Context, w io.Writer, q JournalQuery) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	text := fmt.Sprint(q.Units, q.Pattern)
	for _, n := range []*int{q.Lines, q.Boot} {
		if n != nil {
			text += fmt.Sprint(" ", *n)
		}
	}
	if !q.Since.IsZero() {
		text += " " + q.Since.String()
	}
	k.reads = append(k.reads, text)
	if slices.Contains(q.Units, "broken") {
		_, _ = io.WriteString(w, "half of")
		return errors.New("the program died")
	}
	if k.fails != nil {
		return k.fails
	}
	_, err := fmt.Fprintln(w, "journal:", text)
	return err
}

// TestNodeLogQuery: the journal is asked for services, with kubelet's options; of what it
// does not know the files are shown.
func TestNodeLogQuery(t *testing.T) {
	dir, journal := logTree(t), &book{}
	b := newBed(t, func(cfg *NodeAPIConfig) { cfg.LogDir, cfg.Journal = dir, journal }).run(t)
	boss := b.boss(t)
	for query, want := range map[string]answer{
		"query=kubelet": {code: 200, body: "journal: [kubelet]\n"},
		"query=kubelet&pattern=a.*b&tailLines=7&boot=-1": {code: 200, body: "journal: [kubelet]a.*b 7 -1\n"},
		"query=kubelet&sinceTime=2026-01-02T03:04:05Z":   {code: 200, body: "journal: [kubelet] 2026-01-02 03:04:05 +0000 UTC\n"},
		"query=kubelet&query=syslog&query=none":          {code: 200, body: "journal: [kubelet]\n<html>line</html>\n\nlog not found for none\n"},
		"query=syslog&tailLines=1":                       {code: 200, body: "\noptions present and query resolved to log files for [syslog]\ntry without specifying options\n"},
		"query=out":                                      {code: 200, body: "\nlog not found for out\n"}, // a link that leads out
		"query=..":                                       {code: 200, body: "\nlog not found for ..\n"},
		"query=/syslog":                                  {code: 200, body: "<html>line</html>\n"},
		"query=pods/web/0.log":                           {code: 200, body: "said\n"},
		`query=pods\web\0.log`:                           {code: 200, body: "said\n"},
		"query=/../../secret":                            {code: 404},
		"query=/out":                                     {code: 403},
		"query=/gone":                                    {code: 404},
		"query=%20":                                      {code: 400},
		"query=":                                         {code: 400},
		"query=kubelet&tailLines=x":                      {code: 400},
		"query=kubelet&sinceTime=yesterday":              {code: 400},
		"tailLines=3":                                    {code: 406},
		"query=kubelet&tailLines=-1":                     {code: 406},
		"query=kubelet&tailLines=100001":                 {code: 406},
		"query=kubelet&boot=1":                           {code: 406},
		"query=kubelet&pattern=(":                        {code: 406},
		"query=kubelet&pattern=%00":                      {code: 406},
		"query=kubelet&pattern=" + strings.Repeat("x", 2000):                          {code: 406},
		"query=kubelet&sinceTime=2026-01-02T03:04:05Z&untilTime=2026-01-02T03:04:04Z": {code: 406},
		"query=a&query=b&query=c&query=d&query=e":                                     {code: 406},
		"query=kubelet&query=/syslog":                                                 {code: 406},
		"query=/syslog&query=/a:b":                                                    {code: 406},
		"query=/syslog&tailLines=1":                                                   {code: 406},
		"query=--file%3dx":                                                            {code: 406},
		"query=a%20b":                                                                 {code: 406},
		"query=*":                                                                     {code: 406},
		"query=$(id)":                                                                 {code: 406},
		"query=a%0ab":                                                                 {code: 406},
		"query=" + strings.Repeat("a", 257):                                           {code: 406},
		"other=1":                                                                     {code: 200},
	} {
		got := ask(t, boss, http.MethodGet, b.url+"/logs/?"+strings.ReplaceAll(query, `\`, "%5c"))
		if got.code != want.code || want.body != "" && got.body != want.body || strings.Contains(got.body, "hidden") {
			t.Errorf("%.60s: %d %q, want %d %q", query, got.code, got.body, want.code, want.body)
		}
	}
	if got := ask(t, boss, http.MethodGet, b.url+"/logs/syslog?query=kubelet"); got.code != 406 {
		t.Errorf("a query beside a path: %d %q", got.code, got.body)
	}
	if n := len(journal.reads); n != 4 {
		t.Errorf("the journal was read %q", journal.reads)
	}
	journal.fails = errors.New("too many read")
	if got := ask(t, boss, http.MethodGet, b.url+"/logs/?query=kubelet"); got.code != 503 || !strings.Contains(got.body, "too many read") {
		t.Errorf("a journal that cannot be read: %d %q", got.code, got.body)
	}
	answer, err := boss.Get(b.url + "/logs/?query=broken")
	if err != nil {
		return // it was broken off before anything was sent
	}
	defer answer.Body.Close()
	if half, err := io.ReadAll(answer.Body); err == nil {
		t.Errorf("half a log looks like a whole one: %q", half)
	}
}

// TestNodeLogQueryOff: where the operator wants no queries, they say nothing.
func TestNodeLogQueryOff(t *testing.T) {
	dir := logTree(t)
	b := newBed(t, func(cfg *NodeAPIConfig) { cfg.LogDir = dir }).run(t)
	if got := ask(t, b.boss(t), http.MethodGet, b.url+"/logs/?query=kubelet"); got.code != 200 || !strings.Contains(got.body, "syslog") {
		t.Errorf("%d %q", got.code, got.body)
	}
}

// FuzzNodeLogQuery: what is taken has names of units only, in bounds.
func FuzzNodeLogQuery(f *testing.F) {
	for _, text := range []string{"query=kubelet", "query=-x&boot=0", "query=a&pattern=%28", "tailLines=5", "query=%2fetc"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		values, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		q, asked, err := parseNodeLogQuery(values)
		if err != nil || !asked || q.check() != nil {
			return
		}
		for _, name := range q.services {
			if name == "" || len(name) > maxUnitName || strings.ContainsFunc(name, notOfUnits) {
				t.Errorf("%q is the name of a unit", name)
			}
		}
		if len(q.services) > maxUnits || len(q.files) > 1 || len(q.Pattern) > maxPattern {
			t.Errorf("%+v is taken", q)
		}
	})
}
