package validate

import (
	"net"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Names of iSCSI initiators and targets (RFC 3720, section 3.2.6), as loosely
// as the API server reads them: an iqn may have anything before it.
var (
	iqnName = regexp.MustCompile(`iqn\.\d{4}-\d{2}\.([[:alnum:]-.]+)(:[^,;*&$|\s]+)$`)
	euiName = regexp.MustCompile(`^eui.[[:alnum:]]{16}$`)
	naaName = regexp.MustCompile(`^naa.[[:alnum:]]{32}$`)
)

// networkSources are the volumes of network storage that pods could once name
// themselves.
func networkSources(v *corev1.Volume) []source {
	return []source{
		{"nfs", v.NFS != nil, func(at spot) {
			at.child("server").filled(v.NFS.Server)
			if p := at.child("path"); p.filled(v.NFS.Path) && !strings.HasPrefix(v.NFS.Path, "/") {
				p.invalid(v.NFS.Path, "must be an absolute path")
			}
		}},
		{"iscsi", v.ISCSI != nil, func(at spot) { checkISCSI(at, v.ISCSI, v.Name) }},
		{"fc", v.FC != nil, func(at spot) { checkFC(at, v.FC) }},
		{"glusterfs", v.Glusterfs != nil, func(at spot) {
			at.child("endpoints").filled(v.Glusterfs.EndpointsName)
			at.child("path").filled(v.Glusterfs.Path)
		}},
		{"rbd", v.RBD != nil, func(at spot) {
			filledList(at.child("monitors"), v.RBD.CephMonitors)
			at.child("image").filled(v.RBD.RBDImage)
		}},
		{"cephfs", v.CephFS != nil, func(at spot) { filledList(at.child("monitors"), v.CephFS.Monitors) }},
		{"quobyte", v.Quobyte != nil, func(at spot) { checkQuobyte(at, v.Quobyte) }},
		{"flocker", v.Flocker != nil, func(at spot) { checkFlocker(at, v.Flocker) }},
		{"flexVolume", v.FlexVolume != nil, func(at spot) { checkFlex(at, v.FlexVolume) }},
		{"portworxVolume", v.PortworxVolume != nil, func(at spot) { at.child("volumeID").filled(v.PortworxVolume.VolumeID) }},
		{"scaleIO", v.ScaleIO != nil, func(at spot) {
			at.child("gateway").filled(v.ScaleIO.Gateway)
			at.child("system").filled(v.ScaleIO.System)
			at.child("volumeName").filled(v.ScaleIO.VolumeName)
		}},
		{"storageos", v.StorageOS != nil, func(at spot) { checkStorageOS(at, v.StorageOS) }},
		{"gitRepo", v.GitRepo != nil, func(at spot) {
			at.child("repository").filled(v.GitRepo.Repository)
			relative(at.child("directory"), v.GitRepo.Directory)
		}},
	}
}

// cloudSources are the disks of clouds that pods could once name themselves.
func cloudSources(v *corev1.Volume) []source {
	return []source{
		{"gcePersistentDisk", v.GCEPersistentDisk != nil, func(at spot) {
			at.child("pdName").filled(v.GCEPersistentDisk.PDName)
			at.child("partition").within(int64(v.GCEPersistentDisk.Partition), 0, 255)
		}},
		{"awsElasticBlockStore", v.AWSElasticBlockStore != nil, func(at spot) {
			at.child("volumeID").filled(v.AWSElasticBlockStore.VolumeID)
			at.child("partition").within(int64(v.AWSElasticBlockStore.Partition), 0, 255)
		}},
		{"cinder", v.Cinder != nil, func(at spot) {
			at.child("volumeID").filled(v.Cinder.VolumeID)
			secretRef(at, v.Cinder.SecretRef)
		}},
		{"azureFile", v.AzureFile != nil, func(at spot) {
			at.child("secretName").filled(v.AzureFile.SecretName)
			at.child("shareName").filled(v.AzureFile.ShareName)
		}},
		{"azureDisk", v.AzureDisk != nil, func(at spot) { checkAzureDisk(at, v.AzureDisk) }},
		{"vsphereVolume", v.VsphereVolume != nil, func(at spot) { at.child("volumePath").filled(v.VsphereVolume.VolumePath) }},
		{"photonPersistentDisk", v.PhotonPersistentDisk != nil, func(at spot) { at.child("pdID").filled(v.PhotonPersistentDisk.PdID) }},
	}
}

func filledList(at spot, list []string) {
	if len(list) == 0 {
		at.required("")
	}
}

// secretRef demands a name where a secret is referred to.
func secretRef(at spot, ref *corev1.LocalObjectReference) {
	if ref != nil {
		at.child("secretRef").child("name").filled(ref.Name)
	}
}

func checkISCSI(at spot, v *corev1.ISCSIVolumeSource, volume string) {
	at.child("targetPortal").filled(v.TargetPortal)
	if n := at.child("iqn"); n.filled(v.IQN) {
		iscsiName(n, v.IQN)
	}
	at.child("lun").within(int64(v.Lun), 0, 255)
	if (v.DiscoveryCHAPAuth || v.SessionCHAPAuth) && v.SecretRef == nil {
		at.child("secretRef").required("")
	}
	if v.InitiatorName == nil {
		return
	}
	iscsiName(at.child("initiatorName"), *v.InitiatorName)
	if len(volume)+1+len(v.TargetPortal) > 64 {
		at.invalid(volume, "<volume name>:<iscsi.targetPortal> must be at most 64 characters if iscsi.initiatorName is specified")
	}
}

func iscsiName(at spot, name string) {
	ok := false
	switch {
	case strings.HasPrefix(name, "iqn"):
		ok = iqnName.MatchString(name)
	case strings.HasPrefix(name, "eui"):
		ok = euiName.MatchString(name)
	case strings.HasPrefix(name, "naa"):
		ok = naaName.MatchString(name)
	}
	if !ok {
		at.invalid(name, "must be a valid name starting with iqn, eui, or naa")
	}
}

func checkFC(at spot, v *corev1.FCVolumeSource) {
	names, ids := len(v.TargetWWNs) > 0, len(v.WWIDs) > 0
	if names == ids {
		at.child("targetWWNs").required("must specify either targetWWNs or wwids, but not both")
	}
	if !names {
		return
	}
	if v.Lun == nil {
		at.child("lun").required("lun is required if targetWWNs is specified")
	} else {
		at.child("lun").within(int64(*v.Lun), 0, 255)
	}
}

func checkQuobyte(at spot, v *corev1.QuobyteVolumeSource) {
	at.child("volume").filled(v.Volume)
	if !at.child("registry").filled(v.Registry) {
		return
	}
	// With a tenant that is too long the registry is not looked at; it is
	// refused all the same.
	if len(v.Tenant) > 64 {
		at.child("tenant").invalid(v.Tenant, "must be a UUID and may not exceed a length of 64 characters")
	}
	for pair := range strings.SplitSeq(v.Registry, ",") {
		if _, _, err := net.SplitHostPort(pair); err != nil {
			at.child("registry").invalid(v.Registry, "must be a host:port pair or multiple pairs separated by commas")
		}
	}
}

func checkFlocker(at spot, v *corev1.FlockerVolumeSource) {
	if (v.DatasetName == "") == (v.DatasetUUID == "") {
		at.required("exactly one of datasetName and datasetUUID is required")
	}
	if strings.Contains(v.DatasetName, "/") {
		at.child("datasetName").invalid(v.DatasetName, "must not contain '/'")
	}
}

func checkFlex(at spot, v *corev1.FlexVolumeSource) {
	at.child("driver").filled(v.Driver)
	for k := range v.Options {
		space, _, _ := strings.Cut(k, "/")
		space = "." + strings.ToLower(space)
		if strings.HasSuffix(space, ".kubernetes.io") || strings.HasSuffix(space, ".k8s.io") {
			at.child("options").key(k).invalid(k, "kubernetes.io and k8s.io namespaces are reserved")
		}
	}
}

func checkStorageOS(at spot, v *corev1.StorageOSVolumeSource) {
	if n := at.child("volumeName"); n.filled(v.VolumeName) {
		label(n, v.VolumeName)
	}
	if v.VolumeNamespace != "" {
		label(at.child("volumeNamespace"), v.VolumeNamespace)
	}
	secretRef(at, v.SecretRef)
}

func checkAzureDisk(at spot, v *corev1.AzureDiskVolumeSource) {
	at.child("diskName").filled(v.DiskName)
	uri := at.child("diskURI")
	uri.filled(v.DataDiskURI)
	if v.CachingMode != nil {
		oneOf(at.child("cachingMode"), *v.CachingMode,
			corev1.AzureDataDiskCachingNone, corev1.AzureDataDiskCachingReadOnly, corev1.AzureDataDiskCachingReadWrite)
	}
	if v.Kind == nil {
		return
	}
	kinds := []corev1.AzureDataDiskKind{corev1.AzureSharedBlobDisk, corev1.AzureDedicatedBlobDisk, corev1.AzureManagedDisk}
	oneOf(at.child("kind"), *v.Kind, kinds...)
	prefix := "https://"
	if *v.Kind == corev1.AzureManagedDisk {
		prefix = "/subscriptions/"
	}
	if slices.Contains(kinds, *v.Kind) && !strings.HasPrefix(v.DataDiskURI, prefix) {
		uri.invalid(v.DataDiskURI, "must start with "+prefix+" for a disk of this kind")
	}
}

func checkCSI(at spot, v *corev1.CSIVolumeSource) {
	if d := at.child("driver"); d.filled(v.Driver) {
		if len(v.Driver) > 63 {
			d.tooLong(63)
		}
		d.format(v.Driver, validation.IsDNS1123Subdomain(strings.ToLower(v.Driver)))
	}
	if ref := v.NodePublishSecretRef; ref != nil {
		if n := at.child("nodePublishSecretRef").child("name"); n.filled(ref.Name) {
			subdomain(n, ref.Name)
		}
	}
}
