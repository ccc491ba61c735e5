package podnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"

	gocni "github.com/containerd/go-cni"

	"nodeagent/internal/failpoint"
)

// cniCall is all that it takes to undo an ADD: the configuration as it was then,
// whatever the directory holds by now, and what the plugins were told.
type cniCall struct {
	Conf        string            `json:"conf"`
	List        bool              `json:"list"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Cgroup      string            `json:"cgroup,omitempty"`
	DNS         *DNS              `json:"dns,omitempty"`
}

func newCall(c *netConf, r *Request) *cniCall {
	return &cniCall{Conf: string(c.bytes), List: c.list, Annotations: r.Annotations, Cgroup: r.CgroupParent, DNS: r.DNS}
}

// recordVersion is that of the CNI journal's payload.
const recordVersion = 1

// saveCNI writes a record where it survives a reboot: the addresses that a
// plugin gave out do, too. A failing disk fails the start; without the record
// the address could leak.
func (n *Network) saveCNI(rec *record) error {
	b, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("encode record of cni call: %w", err)
	}
	if _, err := os.Stat(n.cniDir()); err != nil {
		if _, err := n.cniRecs.Prepare(); err != nil {
			return err
		}
	}
	return n.cniRecs.Save(rec.Sandbox, recordVersion, b)
}

func (n *Network) cniDir() string { return n.cfg.StateDir + "/podnet" }

func (n *Network) loadCNI() ([]*record, error) {
	if _, err := n.cniRecs.Prepare(); err != nil {
		// A full or read-only disk: what is there can be read all the same.
		n.log.Warn("cannot clean the journal of cni calls", "error", err)
	}
	names, err := n.cniRecs.Names()
	if err != nil {
		return nil, err
	}
	var out []*record
	for _, name := range names {
		var rec *record
		l, err := n.cniRecs.Load(name, func(version uint32, b []byte) (err error) {
			if version != recordVersion {
				return fmt.Errorf("version %d is unknown", version)
			}
			if rec, err = decodeRecord(name, b); err == nil && rec.CNI == nil {
				err = errors.New("it is not of a cni call")
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, b := range l.Bad {
			n.log.Error("unusable record of a cni call; its address may stay taken", "path", b.Path, "kept", b.Aside, "error", b.Reason)
		}
		if l.Generation != 0 {
			out = append(out, rec)
		}
	}
	return out, nil
}

// plugins prepares go-cni for the configuration of a call.
func (n *Network) plugins(c *cniCall) (gocni.CNI, error) {
	load := gocni.WithConf([]byte(c.Conf))
	if c.List {
		load = gocni.WithConfListBytes([]byte(c.Conf))
	}
	p, err := gocni.New(gocni.WithMinNetworkCount(1), gocni.WithPluginDir([]string{n.cfg.CNIBinDir}), gocni.WithInterfacePrefix("eth"))
	if err == nil {
		err = p.Load(load)
	}
	if err != nil {
		return nil, fmt.Errorf("load cni configuration: %w", err)
	}
	return p, nil
}

// args are what every CNI plugin of a Kubernetes node may count on.
func (rec *record) args() ([]gocni.NamespaceOpts, error) {
	opts := []gocni.NamespaceOpts{
		gocni.WithArgs("IgnoreUnknown", "1"),
		gocni.WithArgs("K8S_POD_NAMESPACE", rec.Namespace),
		gocni.WithArgs("K8S_POD_NAME", rec.Name),
		gocni.WithArgs("K8S_POD_INFRA_CONTAINER_ID", rec.Sandbox),
		gocni.WithArgs("K8S_POD_UID", rec.UID),
		gocni.WithCapability("io.kubernetes.cri.pod-annotations", rec.CNI.Annotations),
	}
	var maps []gocni.PortMapping
	for _, p := range rec.Ports {
		m := gocni.PortMapping{HostPort: int32(p.HostPort), ContainerPort: int32(p.Container), Protocol: protoName(p.Proto)}
		if p.HostIP.IsValid() {
			m.HostIP = p.HostIP.String()
		}
		maps = append(maps, m)
	}
	if len(maps) > 0 {
		opts = append(opts, gocni.WithCapabilityPortMap(maps))
	}
	bw, err := bandwidth(rec.CNI.Annotations)
	if err != nil {
		return nil, err
	}
	if bw != nil {
		opts = append(opts, gocni.WithCapabilityBandWidth(*bw))
	}
	if d := rec.CNI.DNS; d != nil {
		opts = append(opts, gocni.WithCapabilityDNS(gocni.DNS{Servers: d.Servers, Searches: d.Searches, Options: d.Options}))
	}
	if rec.CNI.Cgroup != "" {
		opts = append(opts, gocni.WithCapabilityCgroupPath(rec.CNI.Cgroup))
	}
	return opts, nil
}

// buildCNI runs ADD and returns the pod's addresses. The record is on disk.
func (n *Network) buildCNI(ctx context.Context, r *Request, rec *record) ([]netip.Addr, error) {
	opts, err := rec.args()
	if err != nil {
		return nil, err
	}
	ns, err := openNetns(r.Netns)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if err := n.loUp(ns); err != nil {
		return nil, err
	}
	p, err := n.plugins(rec.CNI)
	if err != nil {
		return nil, err
	}
	if err := failpoint.At(failpoint.PodnetCNIAddBefore); err != nil {
		return nil, err
	}
	var res *gocni.Result
	err = n.runPlugins(ctx, rec.Sandbox, func(ctx context.Context) (err error) {
		res, err = p.Setup(ctx, rec.Sandbox, r.Netns, opts...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("run cni plugins: %w", err)
	}
	if err := failpoint.At(failpoint.PodnetCNIAddAfter); err != nil {
		return nil, err
	}
	addrs := resultAddrs(res)
	if len(addrs) == 0 {
		return nil, fmt.Errorf("run cni plugins: they gave %s no address", podLink)
	}
	return addrs, n.flows.forget(bindings(rec.Ports, addrs), nil)
}

func (n *Network) loUp(ns *os.File) error {
	h, err := routesIn(ns, nil)
	if err != nil {
		return err
	}
	defer h.Close()
	return linkUp(h, "lo")
}

func resultAddrs(res *gocni.Result) []netip.Addr {
	eth := res.Interfaces[podLink]
	if eth == nil {
		return nil
	}
	var all []netip.Addr
	for _, c := range eth.IPConfigs {
		if a, ok := netip.AddrFromSlice(c.IP); ok {
			all = append(all, a.Unmap())
		}
	}
	return addrsOf(all)
}

// undoCNI runs DEL. A namespace that is gone is told as "", with which plugins
// free what they keep outside of it.
func (n *Network) undoCNI(ctx context.Context, rec *record, netns string) error {
	opts, err := rec.args()
	if err != nil {
		opts = nil // the ADD was never run with these
	}
	if netns != "" && isGone(netns) {
		netns = ""
	}
	p, err := n.plugins(rec.CNI)
	if err != nil {
		return err
	}
	if err := failpoint.At(failpoint.PodnetCNIDelBefore); err != nil {
		return err
	}
	err = n.runPlugins(ctx, rec.Sandbox, func(ctx context.Context) error {
		return p.Remove(ctx, rec.Sandbox, netns, opts...)
	})
	if err != nil {
		return fmt.Errorf("run cni plugins to delete: %w", err)
	}
	if err := n.flows.forget(bindings(rec.Ports, rec.Addrs), rec.Addrs); err != nil {
		return err
	}
	return failpoint.At(failpoint.PodnetCNIDelAfter)
}
