package pod

// Reasons of container states and failures, in kubelet's words.
const (
	ReasonContainerCreating          = "ContainerCreating"
	ReasonPodInitializing            = "PodInitializing"
	ReasonCrashLoopBackOff           = "CrashLoopBackOff"
	ReasonErrImagePull               = "ErrImagePull"
	ReasonImagePullBackOff           = "ImagePullBackOff"
	ReasonErrImageNeverPull          = "ErrImageNeverPull"
	ReasonImageInspectError          = "ImageInspectError"
	ReasonInvalidImageName           = "InvalidImageName"
	ReasonRegistryUnavailable        = "RegistryUnavailable"
	ReasonSignatureValidationFailed  = "SignatureValidationFailed"
	ReasonCreateContainerConfigError = "CreateContainerConfigError"
	ReasonCreateContainerError       = "CreateContainerError"
	ReasonRunContainerError          = "RunContainerError"
	ReasonOOMKilled                  = "OOMKilled"
	ReasonCompleted                  = "Completed"
	ReasonError                      = "Error"
	ReasonStartError                 = "StartError"
	ReasonContainerStatusUnknown     = "ContainerStatusUnknown"
	ReasonFailedCreatePodSandBox     = "FailedCreatePodSandBox"
	ReasonFailedMount                = "FailedMount"
	ReasonNetworkNotReady            = "NetworkNotReady"
	ReasonInternalError              = "InternalError"
	ReasonFailedPostStartHook        = "FailedPostStartHook" // why a container was ended
	ReasonPostStartHookError         = "PostStartHookError"  // why it waits then
	ReasonFailedPreStopHook          = "FailedPreStopHook"
	ReasonDeadlineExceeded           = "DeadlineExceeded"
	ReasonRestartingAllContainers    = "RestartingAllContainers"
)

// Exit codes that stand for something that the container did not say itself.
const (
	ExitStartError    = 128
	ExitStatusUnknown = 137
)
