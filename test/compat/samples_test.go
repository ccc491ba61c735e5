package compat

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// sample is a part of a pod, laid over a plain one.
type sample struct {
	of   string // spec, container, init or volume
	text string // YAML
	says string // what names the field in a refusal, where its own name does not
}

func (s sample) lay(t *testing.T, p *corev1.Pod) {
	t.Helper()
	var to any = &p.Spec
	switch s.of {
	case "container":
		to = &p.Spec.Containers[0]
	case "init":
		to = &p.Spec.InitContainers[0]
	case "volume":
		p.Spec.Volumes = []corev1.Volume{{Name: "v"}}
		to = &p.Spec.Volumes[0]
	}
	if err := yaml.UnmarshalStrict([]byte(s.text), to); err != nil {
		t.Fatalf("%s: %v", s.text, err)
	}
}

func ofSpec(text string) sample      { return sample{of: "spec", text: text} }
func ofContainer(text string) sample { return sample{of: "container", text: text} }
func ofVolume(text string) sample    { return sample{of: "volume", text: text, says: noVolumes} }

const noVolumes = "volumes of this kind are not built yet"

// samples are valid uses of what the page calls refused, wholly or in part.
var samples = map[string]sample{
	"PodSpec.ephemeralContainers": ofSpec(`ephemeralContainers: [{name: e, image: i, imagePullPolicy: Always, terminationMessagePolicy: File}]`),
	"PodSpec.serviceAccountName":  ofSpec(`serviceAccountName: a`),
	"PodSpec.serviceAccount":      {of: "spec", text: `serviceAccount: a`, says: "serviceAccountName"},
	"PodSpec.imagePullSecrets":    ofSpec(`imagePullSecrets: [{name: s}]`),
	"PodSpec.hostUsers":           ofSpec(`hostUsers: false`),
	"PodSpec.schedulingGates":     ofSpec(`{schedulingGates: [{name: g}], nodeName: n}`),
	"PodSpec.resourceClaims":      ofSpec(`resourceClaims: [{name: r, resourceClaimName: c}]`),
	"PodSpec.evictionResponders":  ofSpec(`evictionResponders: [{name: example.com/x, priority: 1}]`),

	"PodSecurityContext.seLinuxOptions": ofSpec(`securityContext: {seLinuxOptions: {level: s0}}`),
	"SecurityContext.seLinuxOptions":    ofContainer(`securityContext: {seLinuxOptions: {level: s0}}`),
	"SecurityContext.procMount":         ofContainer(`securityContext: {procMount: Unmasked}`),

	"Container.volumeDevices":     {of: "spec", text: `{volumes: [{name: v, persistentVolumeClaim: {claimName: c}}], containers: [{name: c, image: i, volumeDevices: [{name: v, devicePath: /dev/x}]}]}`, says: "persistentVolumeClaim"},
	"HTTPGetAction.protocol":      {of: "container", text: `readinessProbe: {httpGet: {port: 1, protocol: HTTP2}}`},
	"GRPCAction.mode":             {of: "container", text: `readinessProbe: {grpc: {port: 1, mode: TLS}}`},
	"ResourceRequirements.claims": {of: "spec", text: `{resourceClaims: [{name: r, resourceClaimName: c}], containers: [{name: c, image: i, resources: {claims: [{name: r}]}}]}`, says: "resourceClaims"},
	"Lifecycle.stopSignal":        {of: "spec", text: `{os: {name: linux}, containers: [{name: c, image: i, lifecycle: {stopSignal: SIGUSR1}}]}`},

	"EnvVarSource.configMapKeyRef": ofContainer(`env: [{name: A, valueFrom: {configMapKeyRef: {name: o, key: k}}}]`),
	"EnvVarSource.secretKeyRef":    ofContainer(`env: [{name: A, valueFrom: {secretKeyRef: {name: o, key: k}}}]`),
	"EnvFromSource.configMapRef":   ofContainer(`envFrom: [{configMapRef: {name: o}}]`),
	"EnvFromSource.secretRef":      ofContainer(`envFrom: [{secretRef: {name: o}}]`),

	"EmptyDirVolumeSource.mode":            ofVolume(`emptyDir: {mode: 0700}`),
	"DownwardAPIVolumeFile.user":           ofVolume(`downwardAPI: {items: [{path: p, user: 1, fieldRef: {fieldPath: metadata.name}}]}`),
	"DownwardAPIVolumeSource.defaultUser":  ofVolume(`downwardAPI: {defaultUser: 1}`),
	"ProjectedVolumeSource.defaultUser":    ofVolume(`projected: {defaultUser: 1}`),
	"VolumeProjection.secret":              ofVolume(`projected: {sources: [{secret: {name: x}}]}`),
	"VolumeProjection.configMap":           ofVolume(`projected: {sources: [{configMap: {name: x}}]}`),
	"VolumeProjection.serviceAccountToken": ofVolume(`projected: {sources: [{serviceAccountToken: {path: p}}]}`),
	"VolumeProjection.clusterTrustBundle":  ofVolume(`projected: {sources: [{clusterTrustBundle: {name: x, path: p}}]}`),
	"VolumeProjection.podCertificate":      ofVolume(`projected: {sources: [{podCertificate: {signerName: x.example/y, keyType: ED25519, credentialBundlePath: p}}]}`),
	"VolumeMount.bindMountOptions":         {of: "spec", text: `{volumes: [{name: v, emptyDir: {}}], containers: [{name: c, image: i, volumeMounts: [{name: v, mountPath: /v, bindMountOptions: [noexec]}]}]}`},
	"ConfigMapVolumeSource.defaultUser":    {of: "volume", text: `configMap: {name: x, defaultUser: 1}`, says: "configMap"},
	"SecretVolumeSource.defaultUser":       {of: "volume", text: `secret: {secretName: x, defaultUser: 1}`, says: "secret"},
	"KeyToPath.user":                       {of: "volume", text: `configMap: {name: x, items: [{key: k, path: p, user: 1}]}`, says: "configMap"},
	"Volume.gcePersistentDisk":             ofVolume(`gcePersistentDisk: {pdName: x}`),
	"Volume.awsElasticBlockStore":          ofVolume(`awsElasticBlockStore: {volumeID: x}`),
	"Volume.gitRepo":                       ofVolume(`gitRepo: {repository: x}`),
	"Volume.secret":                        ofVolume(`secret: {secretName: x}`),
	"Volume.nfs":                           ofVolume(`nfs: {server: x, path: /x}`),
	"Volume.iscsi":                         ofVolume(`iscsi: {targetPortal: 192.0.2.1, iqn: "iqn.2015-02.example.com:test", lun: 1}`),
	"Volume.glusterfs":                     ofVolume(`glusterfs: {endpoints: x, path: x}`),
	"Volume.persistentVolumeClaim":         ofVolume(`persistentVolumeClaim: {claimName: x}`),
	"Volume.rbd":                           ofVolume(`rbd: {monitors: [x], image: x}`),
	"Volume.flexVolume":                    ofVolume(`flexVolume: {driver: x/y}`),
	"Volume.cinder":                        ofVolume(`cinder: {volumeID: x}`),
	"Volume.cephfs":                        ofVolume(`cephfs: {monitors: [x]}`),
	"Volume.flocker":                       ofVolume(`flocker: {datasetName: x}`),
	"Volume.fc":                            ofVolume(`fc: {targetWWNs: ["500a0982991b8dc5"], lun: 1}`),
	"Volume.azureFile":                     ofVolume(`azureFile: {secretName: x, shareName: x}`),
	"Volume.configMap":                     ofVolume(`configMap: {name: x}`),
	"Volume.vsphereVolume":                 ofVolume(`vsphereVolume: {volumePath: x}`),
	"Volume.quobyte":                       ofVolume(`quobyte: {registry: "x:1", volume: x}`),
	"Volume.azureDisk":                     ofVolume(`azureDisk: {diskName: x, diskURI: https://x/y.vhd}`),
	"Volume.photonPersistentDisk":          ofVolume(`photonPersistentDisk: {pdID: x}`),
	"Volume.portworxVolume":                ofVolume(`portworxVolume: {volumeID: x}`),
	"Volume.scaleIO":                       ofVolume(`scaleIO: {gateway: x, system: x, volumeName: x, secretRef: {name: x}}`),
	"Volume.storageos":                     ofVolume(`storageos: {volumeName: x}`),
	"Volume.csi":                           ofVolume(`csi: {driver: x.example.com}`),
	"Volume.ephemeral":                     ofVolume(`ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}`),
	"Volume.image":                         ofVolume(`image: {reference: x}`),
}

// accepted are uses of what the page does not call refused, which a test of its
// own may not show to be admitted.
var accepted = map[string]sample{
	"Container.livenessProbe":                     ofContainer(`livenessProbe: {terminationGracePeriodSeconds: 1, grpc: {port: 1, service: s}}`),
	"Container.readinessProbe":                    ofContainer(`readinessProbe: {httpGet: {port: 1, host: h, path: /p, scheme: HTTPS, httpHeaders: [{name: A, value: b}]}}`),
	"Container.startupProbe":                      ofContainer(`startupProbe: {exec: {command: [a]}}`),
	"PodSpec.activeDeadlineSeconds":               ofSpec(`activeDeadlineSeconds: 5`),
	"PodSpec.readinessGates":                      ofSpec(`readinessGates: [{conditionType: example.com/x}]`),
	"Container.restartPolicy":                     {of: "init", text: `restartPolicy: Always`},
	"Container.restartPolicyRules":                ofContainer(`{restartPolicy: Never, restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [1]}}]}`),
	"Container.lifecycle":                         ofContainer(`lifecycle: {postStart: {exec: {command: [a]}}, preStop: {sleep: {seconds: 0}}}`),
	"VolumeMount.subPathExpr":                     {of: "spec", text: `{volumes: [{name: v, emptyDir: {}}], containers: [{name: c, image: i, volumeMounts: [{name: v, mountPath: /v, subPathExpr: $(A), readOnly: true, recursiveReadOnly: IfPossible}]}]}`},
	"Volume.hostPath":                             {of: "volume", text: `hostPath: {path: /p, type: Socket}`},
	"Volume.downwardAPI":                          {of: "volume", text: `downwardAPI: {items: [{path: p, fieldRef: {fieldPath: metadata.name}}]}`},
	"Volume.projected":                            {of: "volume", text: `projected: {sources: [{downwardAPI: {items: [{path: p, fieldRef: {fieldPath: metadata.name}}]}}]}`},
	"EmptyDirVolumeSource.sizeLimit":              {of: "volume", text: `emptyDir: {sizeLimit: 1Mi}`},
	"EmptyDirVolumeSource.medium":                 {of: "volume", text: `emptyDir: {medium: HugePages-2Mi}`},
	"PodSpec.runtimeClassName":                    ofSpec(`runtimeClassName: other`),
	"PodSpec.overhead":                            ofSpec(`overhead: {cpu: 10m}`),
	"PodSpec.priorityClassName":                   ofSpec(`priorityClassName: system-node-critical`),
	"PodSpec.priority":                            ofSpec(`priority: 2000001000`),
	"PodSpec.affinity":                            ofSpec(`affinity: {nodeAffinity: {}}`),
	"PodSpec.tolerations":                         ofSpec(`tolerations: [{operator: Exists}]`),
	"PodSpec.topologySpreadConstraints":           ofSpec(`topologySpreadConstraints: [{maxSkew: 1, topologyKey: k, whenUnsatisfiable: ScheduleAnyway, labelSelector: {}}]`),
	"PodSpec.automountServiceAccountToken":        ofSpec(`automountServiceAccountToken: true`),
	"PodSpec.enableServiceLinks":                  ofSpec(`enableServiceLinks: true`),
	"PodSpec.preemptionPolicy":                    ofSpec(`preemptionPolicy: Never`),
	"PodSpec.schedulerName":                       ofSpec(`schedulerName: x`),
	"PodSpec.hostnameOverride":                    ofSpec(`hostnameOverride: a.b`),
	"PodSpec.hostUsers":                           ofSpec(`hostUsers: true`),
	"PodSpec.os":                                  ofSpec(`os: {name: linux}`),
	"PodSecurityContext.supplementalGroupsPolicy": ofSpec(`securityContext: {supplementalGroupsPolicy: Strict}`),
	"PodSecurityContext.fsGroup":                  ofSpec(`securityContext: {fsGroup: 1, fsGroupChangePolicy: OnRootMismatch, seLinuxChangePolicy: Recursive}`),
	"PodSecurityContext.windowsOptions":           ofSpec(`securityContext: {windowsOptions: {runAsUserName: u}}`),
	"SecurityContext.windowsOptions":              ofContainer(`securityContext: {windowsOptions: {runAsUserName: u}}`),
	"PodSecurityContext.appArmorProfile":          ofSpec(`securityContext: {appArmorProfile: {type: Localhost, localhostProfile: x}}`),
	"PodSecurityContext.sysctls":                  ofSpec(`securityContext: {sysctls: [{name: net.ipv4.tcp_syncookies, value: "0"}]}`),
	"SecurityContext.procMount":                   ofContainer(`securityContext: {procMount: Default}`),
	"SecurityContext.privileged":                  ofContainer(`securityContext: {privileged: true}`),
	"Container.resizePolicy":                      ofContainer(`resizePolicy: [{resourceName: cpu, restartPolicy: NotRequired}]`),
	"Container.stdin":                             ofContainer(`{stdin: true, stdinOnce: true, tty: true}`),
	"EnvVarSource.fieldRef":                       ofContainer(`env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]`),
	"EnvVarSource.resourceFieldRef":               ofContainer(`env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}]`),
}
