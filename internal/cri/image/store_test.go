package image

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"nodeagent/test/bed"
)

// node is a bed with a store and a registry of its own.
type node struct {
	*testing.T
	bed    *bed.Bed
	client *containerd.Client
	reg    *testRegistry
	cfg    Config
	store  *Store
}

// with returns the node with a store that differs.
func (n *node) with(t *testing.T, change func(*Config)) *node {
	t.Helper()
	m := *n
	m.T = t
	m.cfg = n.cfg
	if change != nil {
		change(&m.cfg)
	}
	var err error
	if m.store, err = New(m.cfg); err != nil {
		t.Fatal(err)
	}
	return &m
}

func (n *node) ref(name string) string { return n.reg.host + "/" + name }

func (n *node) pull(ref string) Image {
	n.Helper()
	img, err := n.store.Pull(n.ctx(), ref, nil, nil)
	if err != nil {
		n.Fatal(err)
	}
	return img
}

func (n *node) ctx() context.Context {
	ctx, cancel := context.WithTimeout(n.Context(), 60*time.Second)
	n.Cleanup(cancel)
	return ctx
}

// leases is how many leases containerd has.
func (n *node) leases() int {
	n.Helper()
	ls, err := n.client.LeasesService().List(n.store.namespaced(n.ctx()))
	if err != nil {
		n.Fatal(err)
	}
	return len(ls)
}

// absent fails if the store knows the name.
func (n *node) absent(ref string) {
	n.Helper()
	if img, err := n.store.Get(n.ctx(), ref); !IsNotFound(err) {
		n.Errorf("%s is in the store: %+v, %v", ref, img, err)
	}
}

// TestStore runs against a real containerd and a registry on loopback, both in
// a network namespace without an uplink.
func TestStore(t *testing.T) {
	b := bed.Containerd(t, bed.Options{Stock: true})
	n := &node{T: t, bed: b, client: b.Client(t), reg: newRegistry(t, b)}
	n.cfg = Config{Client: n.client, DockerConfigs: []string{}, ProgressDeadline: 20 * time.Second}
	for name, f := range map[string]func(*node){
		"pull": testPull, "platforms": testPlatforms, "wrong architecture": testWrongArch,
		"auth": testAuth, "bearer": testBearer, "stuck": testStuck, "broken": testBroken, "mirror": testMirror,
		"import": testImport, "shared": testShared, "parallel": testParallel, "remove": testRemove,
		"rootfs": testRootfs, "hostile": testHostile, "sweep": testSweep, "get": testGet, "unpack": testUnpack,
		"access": testAccess, "lend": testLend, "preload": testPreload,
		"given up": testGivenUpLease,
	} {
		t.Run(name, func(t *testing.T) {
			m := n.with(t, nil)
			m.reg = newRegistry(t, b)
			before, ignore := m.leases(), goleak.IgnoreCurrent()
			f(m)
			if after := m.leases(); after != before {
				ls, err := m.client.LeasesService().List(m.store.namespaced(m.ctx()))
				t.Errorf("%d leases are left: %+v, %v", after-before, ls, err)
			}
			if err := goleak.Find(ignore, goleak.IgnoreAnyFunction("net/http.(*conn).serve"), goleak.IgnoreAnyFunction("net/http.(*connReader).backgroundRead")); err != nil {
				t.Error(err)
			}
		})
	}
}

func testPull(n *node) {
	n.reg.push("v1", simple("one"))
	ref := n.ref("team/app:v1")
	n.absent(ref)
	var seen []Progress
	img, err := n.store.Pull(n.ctx(), ref, nil, func(p Progress) { seen = append(seen, p) })
	if err != nil {
		n.Fatal(err)
	}
	if !img.Unpacked || img.Name != ref || img.Config.Env[0] != "WHO=one" || len(img.DiffIDs) != 1 || img.ChainID != img.DiffIDs[0] ||
		img.Size == 0 || img.Platform.Architecture != runtime.GOARCH {
		n.Errorf("image = %+v", img)
	}
	if want := []string{n.reg.host + "/team/app@" + img.Target.String()}; !slices.Equal(img.RepoDigests, want) {
		n.Errorf("repo digests = %v, want %v", img.RepoDigests, want)
	}
	if seen[0].Phase != PhaseWaiting || seen[len(seen)-1].Phase != PhaseComplete || seen[len(seen)-1].Done != img.Size {
		n.Errorf("progress = %+v", seen)
	}
	// The same under every name that it has.
	for _, other := range []string{
		ref, n.reg.host + "/team/app@" + img.Target.String(), n.ref("team/app:other@") + img.Target.String(),
		img.ID.String(), img.ID.Encoded(), img.ID.Encoded()[:12],
	} {
		got, err := n.store.Get(n.ctx(), other)
		if err != nil || got.ID != img.ID || got.Name != ref || !got.Unpacked {
			n.Errorf("Get(%s) = %+v, %v", other, got, err)
		}
	}
	n.absent(n.ref("other/app@") + img.Target.String())
	// Ensure does not ask the registry for what is there.
	asked := n.reg.count("")
	if _, err := n.store.Ensure(n.ctx(), ref, nil, nil); err != nil || n.reg.count("") != asked {
		n.Errorf("Ensure: %v, %d requests", err, n.reg.count("")-asked)
	}
	// A tag that moved: the cache must not hold the old image under its name.
	n.reg.push("v1", simple("two"))
	if again := n.pull(ref); again.ID == img.ID || again.Config.Env[0] != "WHO=two" {
		n.Errorf("pulled again: %+v", again)
	}
	if got, err := n.store.Get(n.ctx(), ref); err != nil || got.Config.Env[0] != "WHO=two" {
		n.Errorf("after the tag moved: %+v, %v", got, err)
	}
	if _, err := n.store.Pull(n.ctx(), n.ref("team/app:absent"), nil, nil); !IsNotFound(err) || IsNoPlatform(err) {
		n.Errorf("a tag that is not there: %v", err)
	}
	if _, err := n.store.Pull(n.ctx(), "not a name", nil, nil); !IsInvalidName(err) || IsRetryable(err) {
		n.Errorf("an invalid name: %v", err)
	}
}

func other() string {
	if runtime.GOARCH == "arm64" {
		return "amd64"
	}
	return "arm64"
}

func testPlatforms(n *node) {
	theirs := build(other(), ocispec.ImageConfig{}, map[string]string{"app": "theirs"})
	n.reg.pushIndex("multi", map[string]built{runtime.GOARCH: simple("ours"), other(): theirs, "s390x": build("s390x", ocispec.ImageConfig{}, map[string]string{"app": "z"})})
	img := n.pull(n.ref("app:multi"))
	if img.Config.Env[0] != "WHO=ours" || !img.Unpacked {
		n.Errorf("image = %+v", img)
	}
	if n.reg.count(theirs.manifest.Layers[0].Digest.String()) > 0 {
		n.Error("the layer of another platform was fetched")
	}
	n.reg.pushIndex("none", map[string]built{other(): theirs, "s390x": build("s390x", ocispec.ImageConfig{}, map[string]string{"app": "z"})})
	_, err := n.store.Pull(n.ctx(), n.ref("app:none"), nil, nil)
	if !IsNoPlatform(err) || IsRetryable(err) {
		n.Fatalf("err = %v", err)
	}
	for _, want := range []string{"linux/" + other(), "linux/s390x", "this node is linux/" + runtime.GOARCH} {
		if !strings.Contains(err.Error(), want) {
			n.Errorf("%v: does not say %s", err, want)
		}
	}
	n.absent(n.ref("app:none"))
	n.Log(err)
}

// testWrongArch: a single manifest says nothing of its platform, its config
// does; and a good image is not lost to it.
func testWrongArch(n *node) {
	ref := n.ref("app:v1")
	n.reg.push("v1", build(other(), ocispec.ImageConfig{}, map[string]string{"app": "theirs"}))
	if _, err := n.store.Pull(n.ctx(), ref, nil, nil); !IsNoPlatform(err) || !strings.Contains(err.Error(), "linux/"+other()) {
		n.Errorf("err = %v", err)
	} else {
		n.Log(err)
	}
	n.absent(ref)
	n.reg.push("v1", simple("good"))
	good := n.pull(ref)
	n.reg.push("v1", build(other(), ocispec.ImageConfig{}, map[string]string{"app": "theirs"}))
	if _, err := n.store.Pull(n.ctx(), ref, nil, nil); !IsNoPlatform(err) {
		n.Errorf("err = %v", err)
	}
	if got, err := n.store.Get(n.ctx(), ref); err != nil || got.ID != good.ID {
		n.Errorf("the good image is lost: %+v, %v", got, err)
	}
}

// testShared: one pull for all who wait, and it lives as long as one of them.
func testShared(n *node) {
	n.reg.push("v1", simple("shared"))
	release, arrived := make(chan struct{}), make(chan struct{}, 100)
	n.reg.rule(holdBlobs(arrived, release))
	type result struct {
		img Image
		err error
	}
	results := make(chan result, 10)
	first, giveUp := context.WithCancel(n.ctx())
	for i := range 10 {
		ctx := n.ctx()
		if i == 0 {
			ctx = first
		}
		go func() {
			img, err := n.store.Pull(ctx, n.ref("app:v1"), nil, nil)
			results <- result{img, err}
		}()
	}
	<-arrived
	waitFor(n, "all ten wait", func() bool {
		n.store.flights.mu.Lock()
		defer n.store.flights.mu.Unlock()
		for _, f := range n.store.flights.running {
			return f.waiters == 10
		}
		return false
	})
	giveUp()
	if r := <-results; !errors.Is(r.err, context.Canceled) {
		n.Errorf("who gave up got %+v", r)
	}
	close(release)
	for range 9 {
		if r := <-results; r.err != nil || !r.img.Unpacked {
			n.Errorf("%+v", r)
		}
	}
	if got := n.reg.count("GET", "/manifests/v1"); got > 1 {
		n.Errorf("%d pulls for ten callers", got)
	}
	// When all have gone, the pull ends.
	n.reg.push("v2", simple("abandoned"))
	n.reg.rule(holdBlobs(arrived, nil))
	ctx, cancel := context.WithCancel(n.ctx())
	go func() { _, err := n.store.Pull(ctx, n.ref("app:v2"), nil, nil); results <- result{err: err} }()
	<-arrived
	cancel()
	if r := <-results; !errors.Is(r.err, context.Canceled) {
		n.Errorf("%+v", r)
	}
	n.reg.rule(nil)
	n.pull(n.ref("app:v2"))
}

// givenUp is a lease service whose caller gives up while it works; a call that is
// cut for it is carried out after everything else, as a server may.
type givenUp struct {
	leases.Manager
	giveUp func() // and waits until the pull has been cancelled
	late   *[]leases.Opt
}

func (m givenUp) Create(ctx context.Context, opts ...leases.Opt) (leases.Lease, error) {
	m.giveUp()
	if ctx.Err() != nil {
		*m.late = opts
		return leases.Lease{}, ctx.Err()
	}
	return m.Manager.Create(ctx, opts...)
}

// testGivenUpLease: a pull that is given up while its lease is taken leaves none.
func testGivenUpLease(n *node) {
	ctx, cancel := context.WithCancel(n.ctx())
	var late []leases.Opt
	var m *node
	giveUp := func() {
		cancel()
		waitFor(n, "the pull is cancelled", func() bool {
			m.store.flights.mu.Lock()
			defer m.store.flights.mu.Unlock()
			return len(m.store.flights.running) == 0
		})
	}
	client, err := containerd.New("", containerd.WithServices(
		containerd.WithLeasesService(givenUp{n.client.LeasesService(), giveUp, &late}),
		containerd.WithImageStore(n.client.ImageService()),
		containerd.WithContentStore(n.client.ContentStore())))
	if err != nil {
		n.Fatal(err)
	}
	n.reg.push("v1", simple("given up"))
	m = n.with(n.T, func(c *Config) { c.Client = client })
	if _, err := m.store.Pull(ctx, n.ref("app:v1"), nil, nil); !errors.Is(err, context.Canceled) {
		n.Errorf("err = %v", err)
	}
	if late != nil {
		if _, err := n.client.LeasesService().Create(n.store.namespaced(n.ctx()), late...); err != nil {
			n.Fatal(err)
		}
	}
}

func waitFor(n *node, what string, ok func() bool) {
	n.Helper()
	limit := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			n.Fatal("waited in vain until ", what)
		}
	}
}

func testParallel(n *node) {
	n = n.with(n.T, func(c *Config) { c.Parallel = 2 })
	var running, most atomic.Int32
	release := make(chan struct{})
	arrived := make(chan struct{}, 100)
	hold := holdBlobs(arrived, release)
	n.reg.rule(hold)
	var wg sync.WaitGroup
	for _, tag := range []string{"a", "b", "c", "d"} {
		n.reg.push(tag, simple("parallel-"+tag))
		wg.Go(func() {
			_, err := n.store.Pull(n.ctx(), n.ref("app:"+tag), nil, func(p Progress) {
				if p.Phase == PhaseResolving && p.Blobs == 0 && running.Load() < 4 {
					most.Store(max(most.Load(), running.Add(1)))
				}
				if p.Phase == PhaseComplete {
					running.Add(-1)
				}
			})
			if err != nil {
				n.Error(err)
			}
		})
	}
	<-arrived
	<-arrived
	if got := len(n.store.slots); got != 2 {
		n.Errorf("%d pulls run, want 2", got)
	}
	close(release)
	wg.Wait()
	if got := len(n.store.slots); got != 0 {
		n.Errorf("%d slots are left taken", got)
	}
}

func testRemove(n *node) {
	n.reg.push("v1", simple("remove"))
	n.reg.push("v2", simple("keep"))
	a, b := n.pull(n.ref("app:v1")), n.pull(n.ref("app:v2"))
	alias := n.pull(n.reg.host + "/again/app:v1")
	if alias.ID != a.ID {
		n.Fatalf("%s and %s", alias.ID, a.ID)
	}
	list, err := n.store.List(n.ctx())
	if err != nil {
		n.Fatal(err)
	}
	i := slices.IndexFunc(list, func(i Image) bool { return i.ID == a.ID })
	if i < 0 || len(list[i].RepoTags) != 2 || len(list[i].RepoDigests) != 2 {
		n.Errorf("list = %+v", list)
	}
	if err := n.store.Remove(n.ctx(), n.ref("app:v1")); err != nil {
		n.Fatal(err)
	}
	n.absent(n.ref("app:v1"))
	if _, err := n.store.Get(n.ctx(), alias.Name); err != nil {
		n.Errorf("the other name went too: %v", err)
	}
	if err := n.store.Remove(n.ctx(), a.ID.String()); err != nil {
		n.Fatal(err)
	}
	n.absent(alias.Name)
	// The snapshot goes with the last name.
	ctx := n.store.namespaced(n.ctx())
	if _, err := n.client.SnapshotService("overlayfs").Stat(ctx, a.ChainID.String()); err == nil {
		n.Error("the snapshot of a removed image is left")
	}
	for _, gone := range []string{n.ref("app:v1"), a.ID.String(), a.ID.Encoded()[:12], "busybox"} {
		if err := n.store.Remove(n.ctx(), gone); err != nil {
			n.Errorf("remove what is gone: %v", err)
		}
	}
	n.reg.push("v3", simple("prune"))
	c := n.pull(n.ref("app:v3"))
	gone, err := n.store.Prune(n.ctx(), func(i Image) bool { return i.ID == b.ID })
	if err != nil || !slices.ContainsFunc(gone, func(i Image) bool { return i.ID == c.ID }) {
		n.Errorf("%+v, %v", gone, err)
	}
	list, err = n.store.List(n.ctx())
	if err != nil || len(list) != 1 || list[0].ID != b.ID {
		n.Errorf("left: %+v, %v", list, err)
	}
}

// testSweep: what an earlier daemon held is given back, and nothing else.
func testSweep(n *node) {
	if _, _, err := n.store.lease(n.store.namespaced(n.ctx())); err != nil { // and die
		n.Fatal(err)
	}
	next := n.with(n.T, nil)
	_, done, err := next.store.lease(next.store.namespaced(n.ctx()))
	if err != nil {
		n.Fatal(err)
	}
	defer done(nil)
	held := n.leases()
	if err := n.with(n.T, func(c *Config) { c.Owner = "another" }).store.Sweep(n.ctx()); err != nil || n.leases() != held {
		n.Errorf("%v; another daemon's lease was taken: %d of %d are left", err, n.leases(), held)
	}
	if err := next.store.Sweep(n.ctx()); err != nil || n.leases() != held-1 {
		n.Errorf("%v; %d leases of %d are left, want one less", err, n.leases(), held)
	}
}

// testGet: the hot path of a container's creation is one call.
func testGet(n *node) {
	n.reg.push("v1", simple("get"))
	img := n.pull(n.ref("app:v1"))
	fresh := n.with(n.T, nil)
	if _, err := fresh.store.Get(n.ctx(), img.Name); err != nil {
		n.Fatal(err)
	}
	if got, ok := fresh.store.cache.get(img.Target); !ok || got.ID != img.ID {
		n.Errorf("not cached: %+v", got)
	}
	// Names and digests that another goroutine holds must not change.
	if got, _ := fresh.store.cache.get(img.Target); got.Name != "" || got.RepoTags != nil {
		n.Errorf("the cache holds a name: %+v", got)
	}
	for _, bad := range []string{"", " ", "a b", "A", "x:y:z", strings.Repeat("a", 2000), "http://x/y", "x@sha256:12"} {
		if _, err := n.store.Get(n.ctx(), bad); !IsInvalidName(err) {
			n.Errorf("Get(%.20q): %v", bad, err)
		}
	}
	n.absent("sha256:" + strings.Repeat("0", 64))
	n.absent("deadbeefdeadbeef")
}

func testUnpack(n *node) {
	n.reg.push("v1", simple("unpack"))
	img := n.pull(n.ref("app:v1"))
	ctx := n.store.namespaced(n.ctx())
	if err := n.client.SnapshotService("overlayfs").Remove(ctx, img.ChainID.String()); err != nil {
		n.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got, err := n.store.Unpack(n.ctx(), img); err != nil || !got.Unpacked || got.Name != img.Name {
				n.Errorf("%+v, %v", got, err)
			}
		})
	}
	wg.Wait()
	if _, err := n.client.SnapshotService("overlayfs").Stat(ctx, img.ChainID.String()); err != nil {
		n.Error(err)
	}
}
