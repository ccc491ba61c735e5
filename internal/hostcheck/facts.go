package hostcheck

// Facts are what was seen of a host. A nil pointer or an empty list means that
// there is nothing of it, or that it could not be looked at; Unseen tells which.
type Facts struct {
	Config    Config
	Kernel    *Kernel
	Tried     *Tried
	Privilege *Privilege
	Cgroups   *Cgroups
	Runtime   *Runtime
	Agents    []Process  // kubelets and the like that live
	Strangers []PodGroup // pods in our cgroups and directories that are not ours
	Listeners []Listener
	Net       *Net
	Firewall  *Firewall
	CNI       *CNI
	Disks     []Disk
	Limits    *Limits
	Sysctls   map[string]string // by key as in sysctl(8)
	Swaps     []string          // files and devices that are on
	Systemd   *Systemd
	Node      *Node
	Fuses     []Fuse // FUSE mounts that matter to pods
	Unseen    []Unseen
}

// Unseen is something that could not be looked at.
type Unseen struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// Config is what the operator told the daemon, as far as the host must fit it.
type Config struct {
	Invalid string   // why it cannot be used; the other fields are defaults then
	Unused  []string // fields that this version does not act on
	Loose   []string // settings that are laxer than our defaults, as "field: value"
	Files   []File   // that decide what runs as root

	ProxyOnly             bool // the pods are another agent's, and so is most of what they need
	FailSwapOn            bool
	ProtectKernelDefaults bool
	Seccomp               bool // seccompDefault
	CgroupDriver          string
	CgroupRoot            string
	Shim, Snapshotter     string
	RootDir               string
	CIDRs                 []string // of the pods; empty without a network of ours
	Ports                 []Port
}

// Port is one of a node's agent. Now: the daemon listens on it as it is configured;
// Later: it starts without it and tries again.
type Port struct {
	Number     int
	Use        string
	Now, Later bool
}

// File is a file or directory whose writer decides what runs as root.
type File struct {
	Path string
	Mode uint32 // permission bits
	UID  uint32
}

// Kernel is what the running kernel has.
type Kernel struct {
	Release    string
	Namespaces []string // as in /proc/self/ns
	Seccomp    bool
	Pidfd      bool // pidfd_open
	Openat2    bool
	CgroupKill bool
	PSI        bool
	MaxUserNS  int // user.max_user_namespaces, -1 without the key
	// Modules: the kernel has modules; ModulesDir: those of this release are there.
	Modules, ModulesDir bool
}

// Tried is what was done in throw-away namespaces: "" went well, else the error.
// A nil pointer was not tried.
type Tried struct {
	Overlay  *string
	Bridge   *string
	Veth     *string
	Nftables *string
	Legacy   *string // iptables of the old kind, tried only where Nftables failed
}

// Privilege is what this process may do.
type Privilege struct {
	Root         bool
	Lacks        []string // capabilities that the daemon needs
	LowestOOMAdj int      // that it may give
}

// Cgroups is the hierarchies.
type Cgroups struct {
	Mode        string // v1, hybrid, v2, none
	Driver      string // in force: cgroupfs or systemd
	PID1        string // name of PID 1
	ReadOnly    bool
	Missing     []string // controllers that the daemon requires and that are not there
	Disabled    []string // by the kernel's command line
	Elsewhere   []string // controllers of v2 that a v1 hierarchy holds
	Optional    []string // missing ones without which some limits do nothing
	Swap        bool     // swap is accounted
	Namespaced  bool     // the root that is seen is not the kernel's
	Undelegated []Undelegated
}

// Undelegated is a cgroup above the pods' that cannot hand controllers down.
type Undelegated struct {
	Cgroup      string
	Controllers []string
	Processes   int // of its own, which forbid it
}

// Runtime is containerd and what it starts.
type Runtime struct {
	Address string
	Error   string // it does not answer: why
	// Processes of containerd by pid, of use where it does not answer.
	Alive        bool
	Version      string
	Shim         string // "" is found; else what containerd says
	Runc         string // "" is usable; else what containerd says
	RuncVersion  string
	RuncLacks    []string // features
	Snapshotters map[string]string
	CRI          bool // its CRI plugin runs
	CRISandboxes int  // that the CRI plugin has in our namespace
}

// Process is one of a foreign agent.
type Process struct {
	PID     int
	Name    string
	RootDir string // its --root-dir
	// CgroupRoot is its --cgroup-root; a file may say otherwise, which nobody
	// else can know.
	CgroupRoot string
}

// PodGroup is a pod in our place that somebody else runs.
type PodGroup struct {
	UID     string
	Where   string // a cgroup or directory
	Runtime string // program that runs it; "" if nothing of it is alive
	Mounts  int    // mounts in its directory
}

// Listener is a TCP socket that listens on one of Config.Ports.
type Listener struct {
	Port int
	Addr string
	PID  int    // 0: not known
	Name string // of the process
	Own  bool   // our own daemon's
}

// Net is the network of the host.
type Net struct {
	BridgeNF  *bool // br_netfilter's sysctls are there
	Forward4  string
	NftRules  int // rules of iptables-nft; -1 unknown
	OldRules  int // rules of iptables-legacy; -1 unknown
	KubeHint  string
	Dropping  string   // how forwarded packets are dropped, or ""
	Service   string   // the firewall service that is behind that, or ""
	Addresses []string // of the node
	Overlaps  []string // pod ranges that a route or an address of the host lies in
	Conntrack [2]int   // in use, most
	Resolv    *Resolv
}

// Resolv is the resolver configuration that pods get.
type Resolv struct {
	Path    string
	Error   string
	Servers []string
}

// Firewall is what others have set up.
type Firewall struct {
	NftRules int    // rules of iptables-nft; -1 unknown
	OldRules int    // rules of iptables-legacy; -1 unknown
	KubeHint string // the kind of iptables that a kubelet has chosen
	Dropping string // how forwarded packets are dropped, or ""
	Service  string // the firewall service that is behind that, or ""
}

// CNI is the configuration of a foreign pod network.
type CNI struct {
	File    string
	Error   string // files are there and none can be used
	BinDir  string
	Missing []string // plugins that are not in BinDir
}

// Disk is a file system that we write to.
type Disk struct {
	Mount    string
	Type     string
	Uses     []string // "root-dir /var/lib/kubelet"
	Image    bool     // containerd's images and layers are here
	Pods     bool     // pods' volumes are here
	ReadOnly bool
	Options  []string
	Size     uint64
	Free     uint64
	Inodes   uint64
	Left     uint64 // inodes
}

// Limits are the kernel's for the whole host.
type Limits struct {
	InotifyInstances, InotifyWatches int
	PIDMax, ThreadsMax               int
	FileMax                          uint64
	PodPids                          int64
}

// Systemd is what the service manager knows of the units that matter.
type Systemd struct {
	Units      map[string]Unit // by name, those that are loaded
	TmpfilesOK bool            // a tmpfiles.d entry makes the run directory
	RunDir     string
}

// Unit is one unit.
type Unit struct {
	Enabled          bool
	KillMode         string
	RuntimeDirectory []string
	Preserve         string
	Isolating        []string // settings that give it mounts of its own
	Conflicts        []string // units that stop when it starts
}

// Node is the machine as such.
type Node struct {
	Name        string
	Unsynced    bool // the clock
	ClockInPast bool // it shows a time before this program was made
	MachineID   string
}

// Fuse is a FUSE mount.
type Fuse struct {
	Mount string
	Type  string
	Error string // of looking at it
}
