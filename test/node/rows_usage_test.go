package node

import (
	"strings"
	"testing"
	"time"
)

// taken is what "stats" tells of a volume.
type taken struct {
	Kind                    string
	Bytes, Inodes, Capacity uint64
	At                      time.Time
}

const mib = 1 << 20

// volumesTaken: what a container has written into its volumes is what they are
// said to take, on a disk and in memory; what it wrote into the node's own
// directory is nobody's volume. The daemon counts once in volumeStatsAggPeriod;
// "inspect", and who asks without a daemon, counts anew.
func (n *rowsNode) volumesTaken(t *testing.T) {
	c := newCLI(t, n.ctx, n.b, n.a)
	if text := n.printed(t, "takes", "app"); text != "filled\n" {
		t.Fatalf("the container that fills its volumes printed %q", text)
	}
	first := c.volumes(t, "daemon")
	if v := first["disk"]; v.Kind != "empty-dir" || v.Inodes != 1 || v.Bytes < 3*mib || v.Bytes > 3*mib+mib/4 || v.Capacity != 0 {
		t.Errorf("a volume with a file of 3 MiB takes %+v", v)
	}
	if v := first["memory"]; v.Kind != "empty-dir" || v.Inodes != 2 || v.Bytes != 2*mib || v.Capacity != 8*mib {
		t.Errorf("a volume in memory with a file of 2 MiB takes %+v", v)
	}
	if o := c.want(t, 0, "stats", "takes", "--interval", "1ms"); !strings.Contains(o.out, "\ndefault/takes-node   disk     empty-dir   3.0MiB") {
		t.Errorf("the table of volumes is\n%s", o.out)
	}
	n.exec(t, "takes", "write", "/disk/more", strings.Repeat("x", 100_000))
	c.want(t, 0, "exec", "takes", "--", "dd", "if=/dev/zero", "of=/disk/file", "bs=1048576", "count=7")
	if v := c.volumes(t, "daemon")["disk"]; v != first["disk"] {
		t.Errorf("within the period it takes %+v, before %+v", v, first["disk"])
	}
	if o := c.want(t, 0, "inspect", "takes"); !strings.Contains(o.out, "disk (empty-dir): 7.1MiB in 2 files") {
		t.Errorf("inspect tells of a file of 7 MiB and one of 100 kB\n%s", o.out)
	}
	must(t, n.a.Kill())
	if v := c.volumes(t, "runtime")["disk"]; v.Bytes < 7*mib || v.Inodes != 2 {
		t.Errorf("without the daemon it takes %+v", v)
	}
	must(t, n.a.Start(n.ctx))
	if v := c.volumes(t, "daemon")["disk"]; v.Bytes < 7*mib || v.Inodes != 2 {
		t.Errorf("after the daemon's death it takes %+v", v)
	}
}

// volumes are what "stats" tells of the volumes of the pod that fills them: of
// two, and of nothing else.
func (c *cli) volumes(t *testing.T, source string) map[string]taken {
	t.Helper()
	var doc struct {
		Source  string
		Volumes []struct {
			PodName, Name string
			taken
		}
		Missed []string
	}
	for end := time.Now().Add(rowLimit); ; doc.Volumes, doc.Missed = nil, nil {
		c.want(t, 0, "stats", "takes", "--interval", "1ms", "-o", "json").document(t, "StatsList", &doc)
		if len(doc.Missed) == 0 || time.Now().After(end) { // on a slow machine they are still being counted
			break
		}
	}
	all := map[string]taken{}
	for _, v := range doc.Volumes {
		all[v.Name] = v.taken
	}
	if _, of := all["disk"]; !of || len(all) != 2 || len(doc.Volumes) != 2 || len(doc.Missed) > 0 || doc.Source != source {
		t.Fatalf("told of volumes is %+v, want disk and memory from the %s", doc, source)
	}
	return all
}
